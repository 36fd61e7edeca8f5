use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How many requests are let through in which time: `100/s`, `100/s burst 200` or `600/m queue 50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRate {
    count: u32,
    per: Duration,
    excess: Excess,
}

/// What becomes of requests that come faster than the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// A token bucket: after a rest, as many as this may come at once; what goes beyond is refused.
    Burst(u32),
    /// A leaky bucket: up to this many wait, and go on one at a time, at the rate; what goes beyond is refused.
    Queue(u32),
}

/// The most of anything in a rate.
const MOST: u32 = 1_000_000;
/// The longest time a rate counts in.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The longest time in which a bucket fills, or a queue empties.
const FILLS: Duration = Duration::from_secs(30 * 86_400);

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// It has another form.
    #[error("{0:?} is no rate; write one such as \"100/s\", \"100/s burst 200\" or \"600/m queue 50\"")]
    Form(String),
    /// A number is too small or too large.
    #[error("{0} must be 1 to {MOST}")]
    Number(&'static str),
    /// The time is no whole number of seconds, or too long.
    #[error("a rate counts in whole seconds, up to a day")]
    Period,
    /// At this rate, it would take for ever.
    #[error("at this rate, so large a burst or queue takes more than 30 days")]
    TooSlow,
}

impl RequestRate {
    /// `count` requests every `per`, which is a whole number of seconds.
    ///
    /// # Errors
    /// Numbers out of their range, and a burst that takes more than 30 days to come back.
    pub fn new(count: u32, per: Duration, excess: Excess) -> Result<Self, InvalidRate> {
        let (name, number) = match excess {
            Excess::Burst(number) => ("the burst", number),
            Excess::Queue(number) => ("the queue", number),
        };
        for (name, number) in [("the number of requests", count), (name, number)] {
            if !(1..=MOST).contains(&number) {
                return Err(InvalidRate::Number(name));
            }
        }
        if per.is_zero() || per.subsec_nanos() != 0 || per > LONGEST {
            return Err(InvalidRate::Period);
        }
        let rate = Self { count, per, excess };
        if rate.interval() * rate.capacity() > FILLS {
            return Err(InvalidRate::TooSlow);
        }
        Ok(rate)
    }

    /// How many requests.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// In which time, in whole seconds.
    #[must_use]
    pub const fn per(&self) -> Duration {
        self.per
    }

    /// What becomes of those that come faster.
    #[must_use]
    pub const fn excess(&self) -> Excess {
        self.excess
    }

    /// The time from one request to the next, rounded up, so that there are never more than the rate allows.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let nanos = self.per.as_nanos().div_ceil(u128::from(self.count.max(1)));
        // A day at most.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many requests may come at once: the burst, or the queue and the one that goes on at once.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        match self.excess {
            Excess::Burst(burst) => burst,
            Excess::Queue(queue) => queue + 1,
        }
    }

    /// The longest time that a request waits in the queue.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        match self.excess {
            Excess::Burst(_) => Duration::ZERO,
            Excess::Queue(queue) => self.interval() * queue,
        }
    }
}

impl FromStr for RequestRate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let form = || InvalidRate::Form(text.chars().take(64).collect());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, excess) = match words.as_slice() {
            [rate] => (rate, None),
            [rate, what @ ("burst" | "queue"), number] => (rate, Some((*what, number))),
            _ => return Err(form()),
        };
        let (count, per) = rate.split_once('/').ok_or_else(form)?;
        let count: u32 = count.parse().map_err(|_| form())?;
        // `/s` is `/1s`.
        let unit = per.starts_with(|c: char| c.is_ascii_alphabetic());
        let per = if unit { format!("1{per}") } else { per.to_owned() };
        let per = humantime::parse_duration(&per).map_err(|_| form())?;
        let excess = match excess {
            None => Excess::Burst(count),
            Some((what, number)) => {
                let number = number.parse().map_err(|_| form())?;
                if what == "queue" { Excess::Queue(number) } else { Excess::Burst(number) }
            }
        };
        Self::new(count, per, excess)
    }
}

impl fmt::Display for RequestRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, humantime::format_duration(self.per).to_string().replace(' ', ""))?;
        match self.excess {
            Excess::Burst(burst) if burst == self.count => Ok(()),
            Excess::Burst(burst) => write!(f, " burst {burst}"),
            Excess::Queue(queue) => write!(f, " queue {queue}"),
        }
    }
}

impl<'de> Deserialize<'de> for RequestRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for RequestRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A network, `10.0.0.0/8` or `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether it has this address. One of IPv4 within IPv6 (`::ffff:…`) is taken as the former.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| {
            let text: String = text.chars().take(64).collect();
            format!("{text:?} is no network; write one such as \"10.0.0.0/8\", or an address")
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where proxies say whom a request is from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        let second = Duration::from_secs(1);
        for (text, count, per, excess) in [
            ("100/s", 100, second, Excess::Burst(100)),
            ("100/s burst 200", 100, second, Excess::Burst(200)),
            ("600/m queue 50", 600, 60 * second, Excess::Queue(50)),
            ("  5/10s   burst 1 ", 5, 10 * second, Excess::Burst(1)),
            ("1000/1d", 1000, 86_400 * second, Excess::Burst(1000)),
            ("7/h", 7, 3600 * second, Excess::Burst(7)),
        ] {
            let rate: RequestRate = text.parse().unwrap();
            assert_eq!((rate.count(), rate.per(), rate.excess()), (count, per, excess), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate), "{rate}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for (text, problem) in [
            ("", "no rate"),
            ("100", "no rate"),
            ("100/", "no rate"),
            ("/s", "no rate"),
            ("-1/s", "no rate"),
            ("1.5/s", "no rate"),
            ("100/s burst", "no rate"),
            ("100/s burst many", "no rate"),
            ("100/s burst 5 queue 5", "no rate"),
            ("100/fortnight", "no rate"),
            ("99999999999/s", "no rate"),
            ("0/s", "the number of requests"),
            ("5/s burst 0", "the burst"),
            ("5/s queue 2000000", "the queue"),
            ("5/100ms", "whole seconds"),
            ("5/0s", "whole seconds"),
            ("5/2d", "whole seconds"),
            ("1/d burst 31", "30 days"),
        ] {
            let error = text.parse::<RequestRate>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_third_of_a_second_is_rounded_up() {
        let rate: RequestRate = "3/s".parse().unwrap();
        assert_eq!(rate.interval().as_nanos(), 333_333_334);
    }

    #[test]
    fn networks_have_addresses() {
        let has = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.1.2.3") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3") && has("127.0.0.1", "127.0.0.1"));
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "10.0.0.1"));
        assert!(!has("::1", "::2") && has("0.0.0.0/0", "1.2.3.4"));
        assert!("10.0.0.0/33".parse::<Network>().unwrap_err().contains("10.0.0.0/33"));
        assert!("nginx".parse::<Network>().is_err());
    }
}
