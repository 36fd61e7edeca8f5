use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::text::text;

/// The longest key or name of this module, in bytes.
const LONGEST: usize = 255;

/// A text that breaks the rule for keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: use 1 to {LONGEST} bytes without control characters{more}")]
pub struct InvalidKey {
    what: &'static str,
    more: &'static str,
}

fn check(text: &str, what: &'static str) -> Result<Arc<str>, InvalidKey> {
    let fits = (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.into()) } else { Err(InvalidKey { what, more: "" }) }
}

text!(
    /// The name of a limit, such as `customer`: any text of 1 to 255 bytes without `/`.
    LimitName,
    InvalidKey,
    text => match text.contains('/') {
        false => check(text, "name of a limit"),
        true => Err(InvalidKey { what: "name of a limit", more: ", and no '/'" }),
    },
    LONGEST,
    r"^[^/\x00-\x1f\x7f-\x9f]+$"
);
text!(
    /// What a job is limited by: a limit's name alone, or with a key, as `customer/42`. Each key is limited for itself,
    /// under the rules of the name.
    LimitKey,
    InvalidKey,
    text => match text.split_once('/') {
        Some(("", _) | (_, "")) => Err(InvalidKey { what: "limit", more: ", as `name` or `name/key`" }),
        _ => check(text, "limit"),
    },
    LONGEST,
    r"^[^/\x00-\x1f\x7f-\x9f]+(/[^\x00-\x1f\x7f-\x9f]+)?$"
);
text!(
    /// Jobs of one ordering key run one at a time, in the order of their acceptance.
    OrderingKey,
    InvalidKey,
    text => check(text, "ordering key"),
    LONGEST,
    r"^[^\x00-\x1f\x7f-\x9f]+$"
);
text!(
    /// On whose behalf a job runs. It has its own share of fair queues, and its unique, idempotency and ordering keys are
    /// not those of others.
    Tenant,
    InvalidKey,
    text => check(text, "tenant"),
    LONGEST,
    r"^[^\x00-\x1f\x7f-\x9f]+$"
);

impl LimitKey {
    /// The limit whose rules hold.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(name, _)| name)
    }
}

/// What happens to the successors of a job with an ordering key while it waits for its next attempt, or is snoozed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They wait until it is over, in whatever way: then they go on, also after a dead one.
    #[default]
    Block,
    /// They go ahead; it comes first again once it is due.
    Skip,
}

/// What a job may have to wait for when it is due: the gates on its way to a worker, apart from its queue's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Gating {
    /// At most [`MAX_LIMITS`](Self::MAX_LIMITS), all of which must have room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitKey>,
    /// Whose jobs run one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<OrderingKey>,
    /// What a failure means to its successors.
    #[serde(skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// On whose behalf it runs; none is a tenant, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
}

impl Gating {
    /// The most limits one job may have.
    pub const MAX_LIMITS: usize = 4;
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How many jobs may run at a time, and how many may start in a time. The default limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// The most that run, or are on their way to a worker, at once; at least 1.
    pub max_running: Option<u32>,
    /// How often one may start.
    pub rate: Option<Rate>,
}

/// A token bucket: `burst` tokens at most, of which `count` come every `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many come, at least 1.
    pub count: u32,
    /// In which time, at least a millisecond.
    pub per: Duration,
    /// How many may start at once after a rest, at least 1.
    pub burst: u32,
}

impl Limit {
    /// At most `max_running` at a time.
    #[must_use]
    pub const fn concurrent(max_running: u32) -> Self {
        Self { max_running: Some(max_running), rate: None }
    }

    /// At most `count` starts every `per`, all of which may be at once.
    #[must_use]
    pub const fn per(count: u32, per: Duration) -> Self {
        Self { max_running: None, rate: Some(Rate { count, per, burst: count }) }
    }

    /// With at most `count` starts every `per`, all of which may be at once.
    #[must_use]
    pub const fn rate(mut self, count: u32, per: Duration) -> Self {
        self.rate = Some(Rate { count, per, burst: count });
        self
    }

    /// With at most `burst` starts at once.
    #[must_use]
    pub const fn burst(mut self, burst: u32) -> Self {
        if let Some(rate) = &mut self.rate {
            rate.burst = burst;
        }
        self
    }

    /// What no limit may have: the field, and what it should be.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self { max_running: Some(0), .. } => Err(("max_running", "must be at least 1")),
            Self { rate: Some(Rate { count: 0, .. }), .. } => Err(("rate", "must be at least 1")),
            Self { rate: Some(Rate { burst: 0, .. }), .. } => Err(("burst", "must be at least 1")),
            Self { rate: Some(Rate { per, .. }), .. }
                if *per < Duration::from_millis(1) || *per > Duration::from_secs(366 * 86_400) =>
            {
                Err(("per", "must be between 1ms and a year"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        let long = "x".repeat(256);
        for good in ["a", "customer/42", "a/b/c", "Kunde 7/ü"] {
            assert_eq!(good.parse::<LimitKey>().unwrap().as_str(), good);
        }
        for bad in ["", "/", "a/", "/b", "a\nb", &long] {
            assert!(bad.parse::<LimitKey>().is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", "\0", &long] {
            assert!(bad.parse::<LimitName>().is_err(), "{bad:?}");
        }
        assert!("a/b".parse::<OrderingKey>().is_ok());
        assert!(long.parse::<OrderingKey>().is_err());
        assert!(long[1..].parse::<Tenant>().is_ok());
        assert_eq!("customer/4/2".parse::<LimitKey>().unwrap().name(), "customer");
        assert_eq!("customer".parse::<LimitKey>().unwrap().name(), "customer");
    }

    #[test]
    fn gating_is_kept_short() {
        let gating = Gating { limits: vec!["a/1".parse().unwrap()], ..Gating::default() };
        let text = serde_json::to_string(&gating).unwrap();
        assert_eq!(text, r#"{"limits":["a/1"]}"#);
        assert_eq!(serde_json::from_str::<Gating>(&text).unwrap(), gating);
        assert_eq!(serde_json::from_str::<Gating>("{}").unwrap(), Gating::default());
    }

    #[test]
    fn limits_are_checked() {
        let second = Duration::from_secs(1);
        assert_eq!(Limit::concurrent(1).rate(1, second).check(), Ok(()));
        for (limit, field) in [
            (Limit::concurrent(0), "max_running"),
            (Limit::per(0, second), "rate"),
            (Limit::per(1, second).burst(0), "burst"),
            (Limit::per(1, Duration::ZERO), "per"),
            (Limit::per(1, Duration::MAX), "per"),
        ] {
            assert_eq!(limit.check().unwrap_err().0, field);
        }
    }
}
