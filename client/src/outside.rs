//! Where webhooks may be: whoever makes one has us send requests, which must not reach what only we can reach.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::{Host, Url};

use crate::Network;

/// The longest URL of a webhook, in bytes.
const LONGEST: usize = 2048;

/// Where webhooks may be. The default is `https` to public addresses.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// Hosts and networks that may be reached although they are not public.
    pub allow: Vec<Allowed>,
    /// Whether `http` is allowed besides `https`.
    pub allow_http: bool,
}

/// A host, by its name, or a network that may be reached although it is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// This host, whatever its addresses.
    Host(String),
    /// These addresses, under whatever name.
    Network(Network),
}

/// Why a URL or address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is none.
    #[error("not a URL with a host, such as https://example.com/hook")]
    Malformed,
    /// It is too long.
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    /// It has another scheme.
    #[error("must begin with https://")]
    Scheme,
    /// It has a user or a password, which everyone who sees the webhook would see.
    #[error("must not have a user or a password; verify the signature instead")]
    Credentials,
    /// Its address, or one of those of its host, is not public.
    #[error("leads to {0}, which is not allowed")]
    Address(&'static str),
}

impl Outside {
    /// Checks a webhook's URL as far as that is possible without asking for the addresses of its host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(&self, text: &str) -> Result<Url, Refused> {
        if text.len() > LONGEST {
            return Err(Refused::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Refused::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err(Refused::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        match url.host().ok_or(Refused::Malformed)? {
            Host::Ipv4(address) => self.check_address("", address.into())?,
            Host::Ipv6(address) => self.check_address("", address.into())?,
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                if (name == "localhost" || name.ends_with(".localhost")) && !self.allows_host(name) {
                    return Err(Refused::Address("this machine"));
                }
            }
        }
        Ok(url)
    }

    /// Checks an address of a host; that of a URL without a name has the name `""`.
    ///
    /// # Errors
    /// [`Refused::Address`] for one that is neither public nor allowed.
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let allowed =
            self.allow.iter().any(|one| matches!(one, Allowed::Network(net) if net.contains(address)));
        match not_public(address) {
            Some(what) if !allowed && !self.allows_host(host) => Err(Refused::Address(what)),
            _ => Ok(()),
        }
    }

    fn allows_host(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.');
        self.allow.iter().any(|one| matches!(one, Allowed::Host(host) if host.eq_ignore_ascii_case(name)))
    }
}

/// What is not public, of IPv4: the registry of special-purpose addresses (RFC 6890), and where a cloud's machines ask
/// for their credentials.
const SPECIAL: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "no address"),
    ([10, 0, 0, 0], 8, "a private network"),
    ([100, 64, 0, 0], 10, "a carrier's private network"),
    ([127, 0, 0, 0], 8, "this machine"),
    ([168, 63, 129, 16], 32, "the metadata of a cloud's machine"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "a private network"),
    ([192, 0, 0, 0], 24, "a special address"),
    ([192, 0, 2, 0], 24, "an address for documentation"),
    ([192, 88, 99, 0], 24, "a tunnel"),
    ([192, 168, 0, 0], 16, "a private network"),
    ([198, 18, 0, 0], 15, "a network for benchmarks"),
    ([198, 51, 100, 0], 24, "an address for documentation"),
    ([203, 0, 113, 0], 24, "an address for documentation"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

/// Of IPv6, within what is public at all.
const SPECIAL_V6: &[([u16; 4], u8, &str)] = &[
    // Teredo among them, which has an IPv4 address inside.
    ([0x2001, 0, 0, 0], 23, "a special address"),
    ([0x2001, 0xdb8, 0, 0], 32, "an address for documentation"),
    ([0x2002, 0, 0, 0], 16, "a tunnel"),
    ([0x3fff, 0, 0, 0], 20, "an address for documentation"),
];

/// What an address is that is not public.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within = |net: [u8; 4], length: u8| (bits ^ Ipv4Addr::from(net).to_bits()) >> (32 - length) == 0;
    SPECIAL.iter().find(|(net, length, _)| within(*net, *length)).map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    // Only 2000::/3 is given out. What is outside is told apart for people: loopback, unique local, link-local and multicast
    // addresses, and those with an IPv4 address inside (mapped, NAT64), which might be any of the above.
    let [first, ..] = address.segments();
    if first >> 13 != 1 {
        return Some(match first {
            _ if address == Ipv6Addr::LOCALHOST => "this machine",
            _ if address == Ipv6Addr::UNSPECIFIED => "no address",
            0xfc00..=0xfdff => "a private network",
            0xfe80..=0xfebf => "a link-local address",
            0xff00..=0xffff => "a multicast address",
            0x0064 => "an address of NAT64",
            0 => "an IPv4 address within an IPv6 one",
            _ => "a special address",
        });
    }
    let bits = address.to_bits() >> 64;
    let within = |net: [u16; 4], length: u8| {
        let net = net.iter().fold(0u128, |net, part| net << 16 | u128::from(*part));
        (bits ^ net) >> (64 - length) == 0
    };
    SPECIAL_V6.iter().find(|(net, length, _)| within(*net, *length)).map(|(_, _, what)| *what)
}

/// A text that is neither a host's name nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host's name nor a network such as 10.1.0.0/16")]
pub struct InvalidAllowed(String);

impl FromStr for Allowed {
    type Err = InvalidAllowed;

    fn from_str(text: &str) -> Result<Self, InvalidAllowed> {
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        match Host::parse(text) {
            Ok(Host::Domain(name)) => Ok(Self::Host(name)),
            _ => Err(InvalidAllowed(text.to_owned())),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Allowed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_outside() {
        let outside = Outside::default();
        let check = |address: &str| outside.check_address("example.com", address.parse().unwrap());
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "3ffe::1",
        ] {
            assert_eq!(check(public), Ok(()), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(matches!(check(inside), Err(Refused::Address(_))), "{inside}");
        }
    }

    #[test]
    fn exceptions_are_by_network_or_name() {
        let allow = ["10.1.0.0/16", "fd00::/8", "127.0.0.1", "hooks.internal"];
        let allow = allow.map(|text| text.parse().unwrap()).to_vec();
        let outside = Outside { allow, allow_http: false };
        let check = |host: &str, address: &str| outside.check_address(host, address.parse().unwrap()).is_ok();
        assert!(check("x", "10.1.2.3") && check("x", "fd00::1") && check("x", "127.0.0.1"));
        assert!(!check("x", "10.2.0.1") && !check("x", "127.0.0.2") && !check("x", "::1"));
        assert!(check("Hooks.Internal.", "192.168.0.1") && !check("other.hooks.internal", "192.168.0.1"));
        for bad in ["", "10.0.0.0/33", "a b", "http://x"] {
            assert!(bad.parse::<Allowed>().is_err(), "{bad}");
        }
        let shown = outside.allow.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown, ["10.1.0.0/16", "fd00::/8", "127.0.0.1/32", "hooks.internal"]);
    }

    #[test]
    fn urls_are_checked() {
        let outside = Outside::default();
        for good in [
            "https://example.com",
            "https://example.com:8443/a?b=c#d",
            "https://1.1.1.1/",
            "https://ü.example",
        ] {
            assert!(outside.check_url(good).is_ok(), "{good}");
        }
        let long = format!("https://example.com/{}", "x".repeat(LONGEST));
        for (bad, why) in [
            ("", Refused::Malformed),
            ("example.com", Refused::Malformed),
            ("https://", Refused::Malformed),
            ("http://example.com", Refused::Scheme),
            ("ftp://example.com", Refused::Scheme),
            ("file:///etc/passwd", Refused::Scheme),
            ("https://user@example.com", Refused::Credentials),
            ("https://:secret@example.com", Refused::Credentials),
            ("https://localhost/", Refused::Address("this machine")),
            ("https://LOCALHOST./", Refused::Address("this machine")),
            ("https://a.localhost", Refused::Address("this machine")),
            ("https://127.0.0.1/", Refused::Address("this machine")),
            // Other ways to write it.
            ("https://2130706433/", Refused::Address("this machine")),
            ("https://0x7f.1/", Refused::Address("this machine")),
            ("https://0177.0.0.01", Refused::Address("this machine")),
            ("https://[::1]:8443/", Refused::Address("this machine")),
            ("https://169.254.169.254/latest", Refused::Address("a link-local address")),
            (&*long, Refused::TooLong),
        ] {
            assert_eq!(outside.check_url(bad), Err(why), "{bad}");
        }
        let open = Outside { allow: vec!["localhost".parse().unwrap()], allow_http: true };
        assert!(open.check_url("http://localhost:1/").is_ok());
        assert!(open.check_url("http://127.0.0.1:1/").is_err());
    }
}
