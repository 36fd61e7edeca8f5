use std::{fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream, HttpBody as _},
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Service, cbor,
    problem::{FieldError, Problem},
    unpack::{self, Coding},
};

/// How much of a body that is too large is still read, and for how long.
const DISCARD: usize = 16 * 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// Reads a body, which must be JSON, or CBOR that stands for it, compressed or not, but keeps never more of it than `limit` bytes, nor than there is
/// memory for.
pub(crate) async fn read(
    service: &Service,
    body: Body,
    headers: &HeaderMap,
    limit: usize,
) -> Result<Bytes, Problem> {
    let is_cbor = is(headers, cbor::MEDIA_TYPE);
    if !is_cbor && !is(headers, "application/json") {
        return Err(Problem::media_type());
    }
    let coding = Coding::of(headers)?;
    let too_large = body.size_hint().lower() > limit as u64;
    let mut body = body.into_data_stream();
    if too_large {
        // A client that asks first need not send it.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(Problem::too_large(limit));
    }
    let mut kept = Kept { bytes: Vec::new(), memory: None };
    let reading = async {
        if let Some(coding) = coding {
            return unpack::read(coding, &mut body, &mut kept, limit, &service.bodies).await;
        }
        while let Some(data) = body.next().await {
            let data = data.map_err(|_| Problem::malformed("the body broke off"))?;
            kept.add(&data, limit, &service.bodies)?;
        }
        Ok(())
    };
    match tokio::time::timeout(service.options.request_timeout, reading).await {
        Ok(Ok(())) if is_cbor => {
            let mut json = Kept { bytes: Vec::new(), memory: None };
            let sink = |part: &[u8]| json.add(part, limit, &service.bodies);
            cbor::to_json(&kept.bytes, service.options.max_depth, sink)?;
            Ok(Bytes::from_owner(json))
        }
        Ok(Ok(())) => Ok(Bytes::from_owner(kept)),
        Ok(Err(problem)) => {
            drop(kept);
            discard(body).await;
            Err(problem)
        }
        Err(_) => Err(Problem::slow_body()),
    }
}

/// What has come of a body, with the memory that it takes of what there is for bodies.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Kept {
    pub(crate) fn add(&mut self, data: &[u8], limit: usize, bodies: &Arc<Semaphore>) -> Result<(), Problem> {
        if self.bytes.len() + data.len() > limit {
            return Err(Problem::too_large(limit));
        }
        let had = self.bytes.capacity();
        self.bytes.reserve(data.len());
        let more = take(bodies, self.bytes.capacity() - had)?;
        match &mut self.memory {
            Some(memory) => memory.merge(more),
            memory @ None => *memory = Some(more),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Takes memory, in bytes, of what there is for bodies.
pub(crate) fn take(bodies: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    bodies.clone().try_acquire_many_owned(bytes).map_err(|_| {
        Problem::unavailable(
            "too many large bodies at a time here; nothing was stored, so repeat it shortly",
            1,
        )
    })
}

/// Reads a request's body.
pub(crate) async fn read_request(service: &Service, request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    read(service, body, &parts.headers, service.options.max_body).await
}

fn is(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(wanted)
}

/// Refuses the fields that are left.
pub(crate) fn no_more(fields: Fields<'_>, errors: &mut Vec<FieldError>, known: &str) {
    for (name, _) in fields.rest("", errors) {
        errors.push(FieldError::new(&name, format!("unknown field; known are {known}")));
    }
}

/// Reads on for a while: a client that finds the connection closed while it still sends does not get to see why.
async fn discard(mut body: BodyDataStream) {
    let reading = async {
        let mut left = DISCARD;
        while let Some(Ok(data)) = body.next().await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether all of it came is of no matter.
    let _ = tokio::time::timeout(DISCARD_FOR, reading).await;
}

pub(crate) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::malformed(format!("the body is not UTF-8 (at byte {})", error.valid_up_to()))
    })
}

/// How deep a JSON text is nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
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

/// The most fields that an object of ours may have.
pub(crate) const MOST_FIELDS: usize = 64;

/// The fields of an object, each still as text, so that each can be judged by itself and the payload is kept as it
/// came. Reading it recurses into none of them, however deep they are.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    fields: Vec<(String, &'a RawValue)>,
    /// Names that came again.
    repeated: Vec<String>,
}

impl<'a> Fields<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Problem> {
        serde_json::from_str(text).map_err(|error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => {
                Problem::invalid(vec![FieldError::whole(without_place(&error))])
            }
            _ => Problem::malformed(format!("the body is not valid JSON: {error}")),
        })
    }

    /// Refuses a field that takes the request beyond `max_depth` levels, its own object being the first.
    pub(crate) fn check_depth(&self, max_depth: usize) -> Result<(), Problem> {
        match self.fields.iter().find(|(_, value)| depth(value.get()) >= max_depth) {
            Some((name, _)) => Err(Problem::too_deep(name, max_depth)),
            None => Ok(()),
        }
    }

    /// Takes a field out as it is.
    pub(crate) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(at).1)
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

    /// Takes out all that is left, with an error for each name that came twice in the object at `parent`.
    pub(crate) fn rest(self, parent: &str, errors: &mut Vec<FieldError>) -> Vec<(String, &'a RawValue)> {
        let repeated = self.repeated.iter();
        errors.extend(repeated.map(|name| FieldError::within(parent, name, "is there more than once")));
        self.fields
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
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut object = Fields::default();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if object.fields.len() + object.repeated.len() >= MOST_FIELDS {
                        return Err(serde::de::Error::custom(format_args!("more than {MOST_FIELDS} fields")));
                    }
                    if object.fields.iter().any(|(field, _)| *field == name) {
                        object.repeated.push(name);
                    } else {
                        object.fields.push((name, value));
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Object)
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
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"[["]]]][[[[["]]"#), 2);
        assert_eq!(depth(r#"[["\"[[["]]"#), 2);
        assert_eq!(depth(r#"["\\", {"a": []}, []]"#), 3);
    }
}
