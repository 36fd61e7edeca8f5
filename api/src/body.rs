use std::{fmt, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::{FieldError, Problem};

/// Reads a body, but never more of it than `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize, patience: Duration) -> Result<Bytes, Problem> {
    match tokio::time::timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(limit)),
        Ok(Err(_)) => Err(Problem::malformed("the body broke off")),
        Err(_) => Err(Problem::slow_body()),
    }
}

/// Checks the text before any parser sees it: UTF-8, and nesting within `max_depth`.
pub(crate) fn text(bytes: &[u8], max_depth: usize) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Problem::malformed(format!("the body is not UTF-8 (at byte {})", error.valid_up_to())))?;
    let mut depth = 0usize;
    for byte in significant(text) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max_depth {
            return Err(Problem::too_deep(max_depth));
        }
    }
    Ok(text)
}

/// The bytes of a JSON text outside of strings, without white space.
fn significant(text: &str) -> impl Iterator<Item = u8> {
    let (mut in_string, mut escaped) = (false, false);
    text.bytes().filter(move |&byte| {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return false;
        }
        in_string = byte == b'"';
        !byte.is_ascii_whitespace()
    })
}

/// Feeds a JSON text to `sink` without the white space between its tokens.
pub(crate) fn compact(text: &str, mut sink: impl FnMut(&[u8])) {
    let bytes = text.as_bytes();
    let (mut in_string, mut escaped, mut start) = (false, false, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            sink(&bytes[start..at]);
            start = at + 1;
        } else {
            in_string = byte == b'"';
        }
    }
    sink(&bytes[start..]);
}

/// The fields of a request's object, each still as text, so that each can be judged by itself and the payload is
/// kept as it came.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Problem> {
        serde_json::from_str(text).map_err(|error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => {
                let detail = without_place(&error);
                Problem::invalid(vec![FieldError { pointer: String::new(), detail }])
            }
            _ => Problem::malformed(format!("the body is not valid JSON: {error}")),
        })
    }

    /// Whether the field is there and not taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// Takes a field out as it is.
    pub(crate) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a field out and reads it by `read`; a field that is `null` counts as absent.
    pub(crate) fn take<T: Deserialize<'a>, U>(
        &mut self,
        name: &str,
        errors: &mut Vec<FieldError>,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        let raw = self.raw(name)?;
        let value = serde_json::from_str::<Option<T>>(raw.get()).map_err(|error| without_place(&error));
        match value.and_then(|value| value.map(read).transpose()) {
            Ok(value) => value,
            Err(detail) => {
                errors.push(FieldError::new(name, detail));
                None
            }
        }
    }

    /// An error for each field that nobody has taken.
    pub(crate) fn refuse_rest(self, known: &str, errors: &mut Vec<FieldError>) {
        let unknown = self.0.into_iter().map(|(name, _)| {
            // A name may be as long as a body.
            let shown: String = name.chars().take(64).collect();
            FieldError::new(&shown, format!("unknown field; known are {known}"))
        });
        errors.extend(unknown);
    }
}

/// Without serde's place, which is one within the field only.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(place) => text[..place].to_owned(),
        None => text,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // Ours are few; an object with many is refused soon after for its unknown ones.
                    if fields.len() >= 64 {
                        return Err(serde::de::Error::custom("more fields than any request has"));
                    }
                    if fields.iter().any(|(field, _)| *field == name) {
                        return Err(serde::de::Error::custom("a field is there twice"));
                    }
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(text: &str) -> String {
        let mut compacted = Vec::new();
        compact(text, |part| compacted.extend_from_slice(part));
        String::from_utf8(compacted).unwrap()
    }

    #[test]
    fn white_space_goes_only_between_tokens() {
        assert_eq!(compacted(" { \"a b\" : [1,\n 2 ] } "), r#"{"a b":[1,2]}"#);
        assert_eq!(compacted(r#"{"a": "x \" y \\"  , "b":" "}"#), r#"{"a":"x \" y \\","b":" "}"#);
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(text(br#"[["]]]][[[[["]]"#, 2).is_ok());
        assert!(text(br#"[["\"[[["]]"#, 2).is_ok());
        assert!(text(b"[[[]]]", 2).is_err());
    }
}
