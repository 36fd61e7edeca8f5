//! Whether brokers want a login that `broker_url` does not have. They close the connection of whoever has none and say
//! nothing, as if they were down; but which mechanisms there are, they tell anyone who asks for one that they lack.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Address;
use super::problem::Problem;

/// Brokers that are there answer within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// `SaslHandshake`, version 1, from a client without a name, for a mechanism `NONE`.
const QUESTION: [u8; 20] = [0, 0, 0, 16, 0, 17, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0, 4, b'N', b'O', b'N', b'E'];
const UNSUPPORTED_MECHANISM: i16 = 33;
/// More than the names of all mechanisms take.
const LONGEST: usize = 4096;

/// What to tell an operator whose brokers want a login, if they do.
pub(super) async fn wanted(address: &Address) -> Option<Problem> {
    if !address.is_plain() {
        return None;
    }
    for host in address.hosts() {
        if let Ok(Some(mechanisms)) = timeout(PATIENCE, ask(host)).await {
            return Some(Problem::Config {
                problem: format!("broker_url: {address} wants a login ({mechanisms})"),
                remedy: "write broker_url as kafka://user:password@host:9092, with sasl.mechanism if it is not PLAIN"
                    .into(),
            });
        }
    }
    None
}

/// The mechanisms that the broker at `host` knows; none if it wants no login, or is no broker.
async fn ask(host: &str) -> Option<String> {
    let mut stream = TcpStream::connect(host).await.ok()?;
    stream.write_all(&QUESTION).await.ok()?;
    let length = usize::try_from(stream.read_i32().await.ok()?).ok()?;
    let mut answer = vec![0; length.min(LONGEST)];
    stream.read_exact(&mut answer).await.ok()?;
    mechanisms(&answer)
}

/// Reads the number of the question, an error code, and a list of names.
fn mechanisms(answer: &[u8]) -> Option<String> {
    let (_, rest) = answer.split_first_chunk::<4>()?;
    let (code, rest) = rest.split_first_chunk()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*code) != UNSUPPORTED_MECHANISM {
        return None;
    }
    let mut names = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, text) = rest.split_first_chunk()?;
        let (name, more) = text.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        names.push(std::str::from_utf8(name).ok()?);
        rest = more;
    }
    Some(names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_brokers_answer() {
        let wants = b"\0\0\0\0\0\x21\0\0\0\x02\0\x05PLAIN\0\x0dSCRAM-SHA-256";
        assert_eq!(mechanisms(wants), Some("PLAIN, SCRAM-SHA-256".into()));
        // Not in this state, which is what a port without logins answers; and what is no broker's answer.
        for other in
            [b"\0\0\0\0\0\x22\0\0\0\0".as_slice(), b"", b"\0\0\0\0\0\x21\0\0\0\x7f\0\x05PL", b"HTTP/1.1 400"]
        {
            assert_eq!(mechanisms(other), None);
        }
    }
}
