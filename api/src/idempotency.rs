//! `Idempotency-Key`, as the IETF's draft has it (draft-ietf-httpapi-idempotency-key-header).

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use windlass_core::{Idempotency, Tenant};

use crate::{
    Service, body,
    problem::{FieldError, Problem},
};

/// The rule for keys in bodies, and for bare ones in the header.
pub(crate) const KEY_RULE: &str = "send one key of 1 to 255 visible ASCII characters";
const HEADER_RULE: &str = "send one key of 1 to 255 ASCII characters, in quotes (RFC 8941: \"order-17\"), or without them if \
                           it has no spaces";
const LONGEST: usize = 255;

/// The routes that take keys. A key of one says nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Jobs,
    Batch,
    Workflows,
}

impl Space {
    fn route(self) -> &'static str {
        match self {
            Self::Jobs => "POST /v1/jobs",
            Self::Batch => "POST /v1/jobs/batch",
            Self::Workflows => "POST /v1/workflows",
        }
    }

    /// The key as it is told apart from those of other routes. No key has a line break.
    fn scoped(self, key: &str) -> String {
        match self {
            Self::Jobs => key.to_owned(),
            Self::Batch => format!("batch\n{key}"),
            Self::Workflows => format!("workflow\n{key}"),
        }
    }
}

/// The request's key, if it has one: a string as RFC 8941 writes it, or a bare word.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (read(value.as_bytes()), values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::invalid(vec![FieldError {
            pointer: "header:idempotency-key".into(),
            detail: HEADER_RULE.into(),
        }])),
    }
}

fn read(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    let Some(quoted) = text.trim_ascii().strip_prefix('"') else {
        return is_key(value).then_some(Cow::Borrowed(text));
    };
    let mut key = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => key.push(rest.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            plain @ ' '..='~' => key.push(plain),
            _ => return None,
        }
    }
    (rest.next().is_none() && (1..=LONGEST).contains(&key.len())).then_some(Cow::Owned(key))
}

/// Whether it is a key as bodies have it.
pub(crate) fn is_key(key: &[u8]) -> bool {
    (1..=LONGEST).contains(&key.len()) && key.iter().all(|b| (0x21..=0x7e).contains(b))
}

/// The key with a fingerprint of the route and of the request's JSON without insignificant white space. The order of its
/// fields counts: a client that repeats a request repeats its bytes.
pub(crate) fn keyed(
    tenant: Option<&Tenant>,
    space: Space,
    key: &str,
    text: &str,
    ttl: Duration,
) -> Idempotency {
    let mut hash = Sha256::new();
    hash.update(space.route());
    hash.update("\n");
    body::compact(text, |part| hash.update(part));
    Idempotency::new(tenant, space.scoped(key), hash.finalize().into(), ttl)
}

/// The keys of the requests that this instance is answering.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashSet<Whose>>);

type Whose = (Option<Tenant>, Space, String);

/// A key that is in flight as long as this is kept.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    keys: &'a InFlight,
    whose: Whose,
}

impl InFlight {
    /// Takes the key, or refuses a request whose twin is being answered. Between instances the store sees to it: the later
    /// request waits there for the earlier one's commit, and is answered with its job.
    pub(crate) fn begin(
        &self,
        tenant: Option<&Tenant>,
        space: Space,
        key: &str,
    ) -> Result<Held<'_>, Problem> {
        let whose = (tenant.cloned(), space, key.to_owned());
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.insert(whose.clone()) {
            true => Ok(Held { keys: self, whose }),
            false => Err(Problem::key_in_flight()),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.whose);
    }
}

impl Service {
    /// What makes a request repeatable, if it has a key, which is its own until it is answered.
    pub(crate) fn repeatable(
        &self,
        headers: &HeaderMap,
        tenant: Option<&Tenant>,
        space: Space,
        text: &str,
    ) -> Result<Option<(Idempotency, Held<'_>)>, Problem> {
        let Some(key) = key(headers)? else { return Ok(None) };
        let held = self.keys_in_flight.begin(tenant, space, &key)?;
        Ok(Some((keyed(tenant, space, &key, text, self.options.idempotency_ttl), held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_strings_or_bare_words() {
        let longest = "x".repeat(255);
        let quoted = format!("\"{longest}\"");
        for (value, expected) in [
            ("order-17", "order-17"),
            ("\"order-17\"", "order-17"),
            ("  \"order-17\" ", "order-17"),
            ("\"order 17\"", "order 17"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            ("a;b=\"c\"", "a;b=\"c\""),
            (&longest, &longest),
            (&quoted, &longest),
        ] {
            assert_eq!(read(value.as_bytes()).as_deref(), Some(expected), "{value}");
        }
        let too_long = format!("\"x{longest}\"");
        for value in [
            "",
            " ",
            "a b",
            "é",
            "\"\"",
            "\"",
            "\"a",
            "\"a\"b",
            "\"a\";p=1",
            "\"a\\",
            "\"a\\n\"",
            "\"é\"",
            "\"a\tb\"",
            &too_long,
            &too_long[1..=256],
        ] {
            assert_eq!(read(value.as_bytes()), None, "{value}");
        }
        assert_eq!(read(b"\"\xff\""), None);
    }

    #[test]
    fn a_key_in_flight_is_taken_for_its_tenant_and_route_only() {
        let keys = InFlight::default();
        let acme: Tenant = "acme".parse().unwrap();
        let held = keys.begin(None, Space::Jobs, "k").unwrap();
        let problem = keys.begin(None, Space::Jobs, "k").unwrap_err();
        assert!(problem.passes());
        let others = [
            keys.begin(Some(&acme), Space::Jobs, "k").unwrap(),
            keys.begin(None, Space::Batch, "k").unwrap(),
            keys.begin(None, Space::Workflows, "k").unwrap(),
            keys.begin(None, Space::Jobs, "K").unwrap(),
        ];
        drop(held);
        keys.begin(None, Space::Jobs, "k").unwrap();
        drop(others);
        assert!(keys.0.lock().unwrap().is_empty());
    }

    #[test]
    fn routes_share_no_keys_even_in_the_store() {
        let stored = |space| keyed(None, space, "k", "{}", Duration::ZERO).key;
        let all = [Space::Jobs, Space::Batch, Space::Workflows].map(stored);
        assert_eq!(HashSet::from(all.clone()).len(), 3, "{all:?}");
    }
}
