//! CBOR (RFC 8949) for those who want smaller bodies: what comes is read as the JSON that it stands for, and answers are
//! written from theirs.

use axum::{
    body::{Body, HttpBody as _, to_bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use ciborium_ll::{Decoder, Header};

use crate::problem::Problem;

pub(crate) const MEDIA_TYPE: &str = "application/cbor";
/// Larger answers stay JSON, since they would have to be held as a whole, and more than once.
const LARGEST: u64 = 4 * 1024 * 1024;

/// An array or a map of which not all has been read.
struct Open {
    map: bool,
    /// How many items it has, keys and values counted alike; `None` if its end is marked.
    items: Option<usize>,
    read: usize,
}

/// Gives the JSON text that stands for a CBOR item to `sink`, piece by piece. No deeper than `max_depth`, and without
/// recursion. Tags are passed over.
pub(crate) fn to_json(
    bytes: &[u8],
    max_depth: usize,
    mut sink: impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut rest = bytes;
    let mut decoder = Decoder::from(&mut rest);
    let mut open: Vec<Open> = Vec::new();
    // The key that all of this is under, of the outermost map.
    let mut field = String::new();
    let mut tagged = false;
    loop {
        let header = decoder.pull().map_err(malformed)?;
        match header {
            Header::Tag(_) => {
                tagged = true;
                continue;
            }
            Header::Break => {
                let last =
                    open.pop().filter(|last| last.items.is_none() && !(last.map && last.read % 2 == 1));
                let last = last
                    .filter(|_| !tagged)
                    .ok_or_else(|| refused("it ends something where nothing can end"))?;
                sink(last.close())?;
            }
            header => {
                let mut is_key = false;
                if let Some(level) = open.last_mut() {
                    is_key = level.map && level.read % 2 == 0;
                    let separator: &[u8] = match level.read {
                        0 => b"",
                        _ if level.map && !is_key => b":",
                        _ => b",",
                    };
                    sink(separator)?;
                    level.read += 1;
                }
                if is_key && !matches!(header, Header::Text(_)) {
                    return Err(refused("it has a key that is no text, which JSON cannot have"));
                }
                let names = is_key && open.len() == 1;
                match header {
                    Header::Text(length) => {
                        let shown = names.then_some(&mut field);
                        text(&mut decoder, length, shown, &mut sink)?;
                    }
                    Header::Array(items) | Header::Map(items) => {
                        if open.len() >= max_depth {
                            return Err(Problem::too_deep(&field, max_depth));
                        }
                        let map = matches!(header, Header::Map(_));
                        let items = match items {
                            Some(pairs) if map => Some(pairs.checked_mul(2).ok_or_else(cut_short)?),
                            items => items,
                        };
                        sink(if map { b"{" } else { b"[" })?;
                        open.push(Open { map, items, read: 0 });
                    }
                    header => sink(scalar(header)?.as_bytes())?,
                }
            }
        }
        tagged = false;
        while let Some(whole) = open.pop_if(|level| level.items == Some(level.read)) {
            sink(whole.close())?;
        }
        if open.is_empty() {
            break;
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(refused("something comes after its end")) }
}

impl Open {
    fn close(&self) -> &'static [u8] {
        if self.map { b"}" } else { b"]" }
    }
}

/// Writes a text, and keeps the beginning of it as `name`.
fn text<R: ciborium_io::Read>(
    decoder: &mut Decoder<R>,
    length: Option<usize>,
    mut name: Option<&mut String>,
    sink: &mut impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if let Some(name) = &mut name {
        name.clear();
    }
    sink(b"\"")?;
    let mut segments = decoder.text(length);
    let mut buffer = [0; 1024];
    while let Some(mut segment) = segments.pull().map_err(malformed)? {
        while let Some(part) = segment.pull(&mut buffer).map_err(malformed)? {
            if let Some(name) = &mut name {
                name.extend(part.chars().take(64_usize.saturating_sub(name.len())));
            }
            let quoted = serde_json::to_string(part).unwrap_or_default();
            sink(quoted.get(1..quoted.len() - 1).unwrap_or_default().as_bytes())?;
        }
    }
    sink(b"\"")
}

fn scalar(header: Header) -> Result<String, Problem> {
    Ok(match header {
        Header::Positive(number) => number.to_string(),
        // By its definition all bits are inverted.
        Header::Negative(number) => (i128::from(number) ^ !0).to_string(),
        Header::Float(number) if number.is_finite() => serde_json::Value::from(number).to_string(),
        Header::Float(_) => {
            return Err(refused("it has a number that is none, or infinite, which JSON cannot have"));
        }
        Header::Simple(20) => "false".into(),
        Header::Simple(21) => "true".into(),
        Header::Simple(22 | 23) => "null".into(),
        Header::Bytes(_) => {
            return Err(refused("it has bytes, which JSON cannot have: write them as a text, in base64"));
        }
        _ => return Err(refused("it has a value that JSON cannot have")),
    })
}

fn malformed<E>(error: ciborium_ll::Error<E>) -> Problem {
    match error {
        // Nothing else goes wrong when memory is read.
        ciborium_ll::Error::Io(_) => cut_short(),
        ciborium_ll::Error::Syntax(offset) => refused(&format!("it is damaged at byte {offset}")),
    }
}

fn cut_short() -> Problem {
    refused("it is cut short")
}

fn refused(why: &str) -> Problem {
    Problem::malformed(format!("the body is not CBOR that stands for JSON: {why}"))
}

/// The answer, in CBOR if that is wanted.
pub(crate) async fn answer(mut response: Response, wanted: bool) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| matches!(kind, "application/json" | "application/problem+json"));
    // A stream has none, and is not JSON.
    let size = response.body().size_hint().exact().unwrap_or_default();
    if !is_json || !(1..=LARGEST).contains(&size) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    if !wanted {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = match to_bytes(body, usize::try_from(LARGEST).unwrap_or(usize::MAX)).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "an answer cannot be read");
            return Problem::internal().into_response();
        }
    };
    let mut written = Vec::with_capacity(bytes.len());
    let value = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
    // What is too deep for that stays JSON, as clients can see.
    if value.is_none_or(|value| ciborium::into_writer(&value, &mut written).is_err()) {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(written))
}

/// Whether CBOR is named, and JSON is not liked better.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut cbor, mut json) = (0.0, 0.0);
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    for range in lists.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let weight =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0_f32));
        if media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
            cbor = weight;
        } else if media_type.eq_ignore_ascii_case("application/json") {
            json = weight;
        }
    }
    cbor > 0.0 && cbor >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> Result<String, Problem> {
        let mut text = Vec::new();
        to_json(bytes, 4, |part| {
            text.extend_from_slice(part);
            Ok(())
        })?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn items_stand_for_json() {
        for (bytes, wanted) in [
            (&b"\x00"[..], "0"),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "-18446744073709551616"),
            (b"\x20", "-1"),
            (b"\xf9\x3e\x00", "1.5"),
            (b"\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", "1e+300"),
            (b"\xf4", "false"),
            (b"\xf5", "true"),
            (b"\xf6", "null"),
            (b"\x80", "[]"),
            (b"\xa0", "{}"),
            (b"\x62\"\\", r#""\"\\""#),
            (b"\x64\x00\x0a\xc3\xbc", r#""\u0000\nü""#),
            (b"\xa2\x61a\x01\x61b\x82\x02\x03", r#"{"a":1,"b":[2,3]}"#),
            (b"\xbf\x61a\x9f\x01\xa0\xff\x61b\xf6\xff", r#"{"a":[1,{}],"b":null}"#),
            (b"\x7f\x62st\x61r\xff", r#""str""#),
            // Tags: self-described, a date.
            (b"\xd9\xd9\xf7\xc0\x61x", r#""x""#),
        ] {
            assert_eq!(json(bytes).unwrap(), wanted);
            // Each part of it is cut short.
            for end in 0..bytes.len() {
                assert!(json(&bytes[..end]).is_err(), "{bytes:x?} {end}");
            }
            assert!(json(&[bytes, b"\x00"].concat()).is_err());
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bytes in [
            &b"\x41a"[..],
            b"\xa1\x01\x02",
            b"\xf9\x7e\x00",
            b"\xf9\x7c\x00",
            b"\xf0",
            b"\xff",
            b"\xbf\x61a\xff",
            b"\x9f\xc0\xff",
            b"\x82\x01\xff",
            b"\x62\xff\xff",
            b"\x1c",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61a\x01",
            b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff\x61a",
            b"\x81\x81\x81\x81\x81\x00",
        ] {
            assert!(json(bytes).is_err(), "{bytes:x?}");
        }
        assert!(json(b"\x81\x81\x81\x81\x00").is_ok());
    }

    #[test]
    fn cbor_is_wanted_by_those_who_name_it() {
        let wanted = |accept: &'static str| {
            is_wanted(&[(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect())
        };
        for accept in
            ["application/cbor", "text/html, application/cbor;q=0.5", "application/json, application/cbor"]
        {
            assert!(wanted(accept), "{accept}");
        }
        for accept in
            ["*/*", "application/*", "application/cbor;q=0", "application/json, application/cbor; q=0.9", ""]
        {
            assert!(!wanted(accept), "{accept}");
        }
    }
}
