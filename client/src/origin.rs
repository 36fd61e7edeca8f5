use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Whose pages a browser lets use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Everyone's: `*`.
    Any,
    /// Those of one origin, as browsers write it: `https://app.example.com`, with the port unless it is the usual one.
    Exact(String),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        // Browsers send it in lower case, and compare each byte.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(format!(
                "{text:?} is no origin: write https://app.example.com, in lower case, with a port if it is not the usual \
                 one, without a path; or * for all"
            ));
        }
        Ok(Self::Exact(text.to_owned()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Exact(origin) => origin,
        })
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        for text in ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:3000"] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "ftp://a",
            "https://A",
            "https://*.a",
            "null",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
