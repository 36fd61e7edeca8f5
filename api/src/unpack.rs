//! Bodies of requests that come compressed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::BodyDataStream,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _},
    sync::Semaphore,
};
use tokio_util::io::StreamReader;

use crate::{
    body::{Kept, take},
    problem::Problem,
};

/// The largest window of zstd, as a power of two: what RFC 8878 asks of every decoder.
const ZSTD_WINDOW: u32 = 23;
/// What decoders have beside the window.
const TABLES: usize = 256 * 1024;
/// How much is unpacked at a time.
const STEP: usize = 8192;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
    Brotli,
}

impl Coding {
    /// Those that are known, as a header lists them.
    pub(crate) const KNOWN: &'static str = "gzip, zstd, br";

    /// By the request's headers; `None` if it comes as it is.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let name = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            // One after the other is what nobody needs.
            _ if values.next().is_some() => Err(Problem::coding()),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "zstd" => Ok(Some(Self::Zstd)),
            "br" => Ok(Some(Self::Brotli)),
            "identity" => Ok(None),
            _ => Err(Problem::coding()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    /// How much memory the decoder will take for a stream that begins so, in bytes.
    fn memory(self, begin: &[u8]) -> Result<usize, Problem> {
        let window = match self {
            Self::Gzip => 1 << 15,
            Self::Zstd => zstd_window(begin),
            Self::Brotli => brotli_window(begin),
        };
        if window > 1 << 24 || (self == Self::Zstd && window > 1 << ZSTD_WINDOW) {
            return Err(Problem::malformed(format!(
                "unpacking this {} body takes more memory than there is for it: compress it with a smaller window",
                self.name()
            )));
        }
        Ok(window + TABLES)
    }

    fn decoder<'a>(
        self,
        input: impl AsyncBufRead + Send + Unpin + 'a,
    ) -> Pin<Box<dyn AsyncRead + Send + 'a>> {
        match self {
            Self::Gzip => Box::pin(GzipDecoder::new(input)),
            Self::Zstd => {
                Box::pin(ZstdDecoder::with_params(input, &[DParameter::window_log_max(ZSTD_WINDOW)]))
            }
            Self::Brotli => Box::pin(BrotliDecoder::new(input)),
        }
    }
}

/// The window that the header of a frame asks for (RFC 8878, 3.1.1.1); the largest, where that cannot be seen yet.
fn zstd_window(begin: &[u8]) -> usize {
    /// As far as the header may go.
    const HEADER: usize = 18;
    let most = 1usize << ZSTD_WINDOW;
    let Some((magic, rest)) = begin.get(..HEADER).and_then(|header| header.split_first_chunk::<4>()) else {
        return most;
    };
    if *magic != 0xFD2F_B528_u32.to_le_bytes() {
        return most;
    }
    let descriptor = rest[0];
    let single = descriptor & 0x20 != 0;
    if !single {
        let (exponent, mantissa) = (u32::from(rest[1] >> 3), usize::from(rest[1] & 7));
        // 41 at the most, which a usize of 32 bits does not hold.
        let Some(base) = 1usize.checked_shl(10 + exponent).filter(|base| *base > 0) else {
            return usize::MAX;
        };
        return base.saturating_add(base / 8 * mantissa);
    }
    let id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = |bytes: usize| {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(&rest[1 + id..1 + id + bytes]);
        usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX)
    };
    match descriptor >> 6 {
        0 => size(1),
        1 => size(2) + 256,
        2 => size(4),
        _ => size(8),
    }
}

/// The window that a stream asks for (RFC 7932, 9.1). What would be no window there asks for a large one, by an
/// extension that decoders have.
fn brotli_window(begin: &[u8]) -> usize {
    let first = begin.first().copied().unwrap_or_default();
    let (upper, lower) = ((first >> 1) & 7, (first >> 4) & 7);
    let bits = match (first & 1, upper, lower) {
        (0, ..) => 16,
        (_, 1.., _) => 17 + u32::from(upper),
        (_, _, 0) => 17,
        (_, _, 1) => return usize::MAX,
        (_, _, _) => 8 + u32::from(lower),
    };
    1 << bits
}

/// Unpacks a body. Neither what comes nor what it becomes may be longer than `limit`, and the decoder's memory is taken
/// from what there is for bodies.
pub(crate) async fn read(
    coding: Coding,
    body: &mut BodyDataStream,
    kept: &mut Kept,
    limit: usize,
    bodies: &Arc<Semaphore>,
) -> Result<(), Problem> {
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    let mut input = StreamReader::new(body.map(move |chunk| {
        let chunk: Bytes = chunk.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        match count.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len() {
            sum if sum > limit => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
            _ => Ok(chunk),
        }
    }));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionAborted => Problem::malformed("the body broke off"),
        io::ErrorKind::FileTooLarge => Problem::too_large(limit),
        _ => Problem::malformed(format!(
            "the body is not what {} makes of something, or is cut short",
            coding.name()
        )),
    };
    let begin = input.fill_buf().await.map_err(failed)?;
    if begin.is_empty() {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    let _memory = take(bodies, coding.memory(begin)?)?;
    {
        let mut decoder = coding.decoder(&mut input);
        let mut step = vec![0; STEP];
        loop {
            let unpacked = decoder.read(&mut step).await.map_err(failed)?;
            if unpacked == 0 {
                break;
            }
            kept.add(&step[..unpacked], limit, bodies)?;
            // A little may become a lot, which is not to keep others waiting.
            tokio::task::coop::consume_budget().await;
        }
    }
    match input.fill_buf().await.map_err(failed)? {
        [] => Ok(()),
        _ => {
            Err(Problem::malformed(format!("the body goes on after the end of its {} stream", coding.name())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_what_the_formats_say() {
        // Not a single segment, 2 MiB; the largest that there is; a single segment of 300 bytes, and of 5 GiB.
        let zstd = |header: &[u8]| {
            let mut begin = vec![0x28, 0xb5, 0x2f, 0xfd];
            begin.extend_from_slice(header);
            begin.resize(18, 0);
            zstd_window(&begin)
        };
        assert_eq!(zstd(&[0x00, 0x58]), 2 << 20);
        assert_eq!(zstd(&[0x00, 0x59]), (2 << 20) / 8 * 9);
        assert!(zstd(&[0x00, 0xff]) > 1 << 40);
        assert_eq!(zstd(&[0x60, 44, 0]), 300);
        assert_eq!(zstd(&[0x63, 1, 2, 3, 4, 44, 0]), 300);
        assert_eq!(zstd(&[0xe0, 0, 0, 0, 0x40, 1, 0, 0, 0]), 5 << 30);
        assert_eq!(zstd_window(b"\x28\xb5"), 1 << 23);
        for (first, bits) in
            [(0x0c, 16), (0x01, 17), (0x03, 18), (0x0b, 22), (0x0f, 24), (0x21, 10), (0x71, 15)]
        {
            assert_eq!(brotli_window(&[first]), 1 << bits, "{first:#x}");
        }
        for large in [0x11, 0x91] {
            assert!(Coding::Brotli.memory(&[large]).is_err());
        }
    }
}
