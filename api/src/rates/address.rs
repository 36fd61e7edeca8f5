//! Whom a request is from, where proxies stand between.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use windlass_client::{Network, ProxyHeader};

use super::table::Key;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whose word on addresses is taken.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// The proxies of the operator.
    pub trusted: Vec<Network>,
    /// Where they say whom a request is from. Only one header is read: a client can send the one that they do not write.
    pub header: ProxyHeader,
}

impl Proxies {
    /// The client of a request that came from `peer`. Each proxy adds, at the end, whom it was called by. So the list is
    /// read from there, for as long as those who speak are trusted.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(match self.header {
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => header::FORWARDED,
        });
        // Quotes are not heeded here: what a client leaves open must not swallow what a proxy has added.
        let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries {
            if !self.trusted.iter().any(|network| network.contains(client)) {
                break;
            }
            let entry = str::from_utf8(entry).ok().map(str::trim);
            let address = entry.and_then(|entry| match self.header {
                ProxyHeader::XForwardedFor => address(entry),
                ProxyHeader::Forwarded => address(forwarded_for(entry)?),
            });
            // One that says nothing, or hides it, is the nearest that is known.
            let Some(address) = address else { break };
            client = address;
        }
        client
    }
}

/// What is counted as one client: an address, or a /64 of IPv6, which is what a single client has.
pub(super) fn key(client: IpAddr) -> Key {
    match client {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => (address.to_bits() & !u128::from(u64::MAX)).to_be_bytes(),
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address| address.to_canonical())
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(*name, HeaderValue::from_str(line).unwrap());
        }
        Proxies { trusted, header }.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn it_is_the_last_that_no_proxy_of_ours_is() {
        for (peer, lines, expected) in [
            // Nobody else's word counts.
            ("1.1.1.1", vec!["9.9.9.9"], "1.1.1.1"),
            ("::ffff:1.1.1.1", vec!["9.9.9.9"], "1.1.1.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["9.9.9.9"], "9.9.9.9"),
            ("::ffff:10.0.0.1", vec!["9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", vec!["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", vec!["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", vec!["6.6.6.6", "9.9.9.9", "10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", vec!["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("2001:db8::1", vec!["9.9.9.9:1234"], "9.9.9.9"),
            ("10.0.0.1", vec!["[2001:aaaa::1]:443"], "2001:aaaa::1"),
            ("10.0.0.1", vec!["2001:aaaa::1"], "2001:aaaa::1"),
            ("10.0.0.1", vec!["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", vec!["6.6.6.6, "], "10.0.0.1"),
        ] {
            let lines: Vec<_> = lines.into_iter().map(|line| ("x-forwarded-for", line)).collect();
            assert_eq!(client(ProxyHeader::XForwardedFor, peer, &lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_well() {
        for (line, expected) in [
            ("for=9.9.9.9", "9.9.9.9"),
            ("For=\"[2001:aaaa::1]:4711\";proto=https", "2001:aaaa::1"),
            ("for=6.6.6.6, proto=https; for=9.9.9.9 ;by=10.0.0.1", "9.9.9.9"),
            ("for=\"6.6.6.6, for=9.9.9.9", "9.9.9.9"),
            ("for=9.9.9.9, for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(
                client(ProxyHeader::Forwarded, "10.0.0.1", &[("forwarded", line)]),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn the_header_that_proxies_do_not_write_says_nothing() {
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "9.9.9.9")];
        assert_eq!(client(ProxyHeader::XForwardedFor, "10.0.0.1", &both), "9.9.9.9");
        assert_eq!(client(ProxyHeader::Forwarded, "10.0.0.1", &both), "6.6.6.6");
        assert_eq!(client(ProxyHeader::Forwarded, "10.0.0.1", &both[1..]), "10.0.0.1");
    }

    #[test]
    fn a_64_is_one_client() {
        let key = |text: &str| key(text.parse().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
    }
}
