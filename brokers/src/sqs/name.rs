use sha2::{Digest, Sha256};
use windlass_core::Lane;

use super::address::Address;

/// The longest name a queue may have, `.fifo` included.
const LONGEST: usize = 80;

/// The queue of `lane`, such as `windlass-mail-1`. Different lanes have different names.
///
/// A name may not have dots in it: `.` becomes `_-`, and hence `_` becomes `__`. What is too long is cut, after `_h`
/// and a hash of the whole, which no other name has in it.
pub(super) fn queue_name(address: &Address, lane: &Lane) -> String {
    let prefix = &address.prefix;
    let suffix = format!("-{}{}", lane.priority as u8, if address.fifo { ".fifo" } else { "" });
    let mut queue = lane.queue.as_str().replace('_', "__").replace('.', "_-");
    let room = LONGEST - prefix.len() - 1 - suffix.len();
    if queue.len() > room {
        let hash = Sha256::digest(lane.queue.as_str());
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        queue.insert_str(0, &format!("_h{hash}-"));
        queue.truncate(room);
    }
    format!("{prefix}-{queue}{suffix}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use windlass_core::Priority;

    use super::*;

    fn name(parameters: &str, queue: &str) -> String {
        let address = Address::parse(&format!("sqs://x?{parameters}")).unwrap();
        queue_name(&address, &Lane { queue: queue.parse().unwrap(), priority: Priority::Normal })
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(name("", "mail"), "windlass-mail-1");
        assert_eq!(name("fifo=true", "mail"), "windlass-mail-1.fifo");
        assert_eq!(name("prefix=prod", "eu.send_mail"), "prod-eu_-send__mail-1");
    }

    #[test]
    fn names_fit_and_differ() {
        let dots = ".".repeat(64);
        let long = [
            "x".repeat(64),
            format!("{}.", &dots[1..]),
            format!("{}_", &dots[1..]),
            format!("{}-", &dots[1..]),
            format!("{}a", &dots[1..]),
            format!("a{}", &dots[1..]),
        ];
        let short = ["a.b", "a_b", "a-b", "a_-b", "a__b", "a._b", "a_.b", "_h", ".h"].map(str::to_owned);
        for parameters in ["", "fifo=true", "prefix=aaaaaaaaaaaaaaaaaaaa&fifo=true"] {
            let names: HashSet<String> =
                long.iter().chain(&short).map(|queue| name(parameters, queue)).collect();
            assert_eq!(names.len(), long.len() + short.len());
            for name in names {
                let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                let stem = name.strip_suffix(".fifo").unwrap_or(&name);
                assert!(name.len() <= LONGEST && stem.chars().all(known), "{name}");
            }
        }
    }
}
