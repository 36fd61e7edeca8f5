//! What happened, as text: the same for the same seed.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::world::Ms;

/// The ids of jobs are numbers behind this.
pub const JOBS: &str = "00000000-0000-7000-8000-";

/// Everything that was sent, done and decided, in order.
#[derive(Debug, Default)]
pub struct History {
    pub lines: Vec<String>,
    /// Ids are random, so each has a name by when it was first met.
    names: BTreeMap<String, usize>,
}

impl History {
    pub fn note(&mut self, at: Ms, what: &str) {
        let mut line = format!("{:>3}.{:03} ", at / 1000, at % 1000);
        let mut rest = what;
        while let Some((before, id, after)) = first_id(rest) {
            line.push_str(before);
            if let Some(number) = id.strip_prefix(JOBS) {
                let _ = write!(line, "job {}", number.trim_start_matches('0'));
            } else {
                let next = self.names.len() + 1;
                let name = self.names.entry(id.to_owned()).or_insert(next);
                let _ = write!(line, "#{name}");
            }
            rest = after;
        }
        line.push_str(rest);
        self.lines.push(line);
    }
}

/// The first UUID, and what is around it.
fn first_id(text: &str) -> Option<(&str, &str, &str)> {
    const LENGTH: usize = 36;
    let is_id = |id: &[u8]| {
        id.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let at = text.as_bytes().windows(LENGTH).position(is_id)?;
    Some((&text[..at], &text[at..at + LENGTH], &text[at + LENGTH..]))
}
