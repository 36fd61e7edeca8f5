//! How lists and durations are written in files and environments.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

/// A list, or one text with commas, as environments have it.
pub(super) fn list<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Items(Vec<String>),
        Text(String),
    }
    let items = match List::deserialize(deserializer)? {
        List::Items(items) => items,
        List::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
    };
    items.iter().filter(|item| !item.is_empty()).map(|item| item.parse().map_err(D::Error::custom)).collect()
}

pub(super) mod duration {
    use std::time::Duration;

    use serde::{
        Deserialize, Deserializer, Serializer,
        de::{Error as _, IgnoredAny},
    };

    pub(in crate::settings) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            /// A number, mostly.
            Other(IgnoredAny),
        }
        let read = match Written::deserialize(deserializer)? {
            Written::Text(text) => humantime::parse_duration(&text).map_err(|e| e.to_string()),
            Written::Other(_) => Err("a duration has a unit".into()),
        };
        read.map_err(|e| D::Error::custom(format!("{e}; write a duration such as \"30s\" or \"5m\"")))
    }
}

pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Written(#[serde(with = "super::duration")] Duration);

        Ok(Option::<Written>::deserialize(deserializer)?.map(|Written(duration)| duration))
    }
}
