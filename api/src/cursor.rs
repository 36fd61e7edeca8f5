//! Where a list of jobs goes on. Clients hand it back as it came and need not know what is in it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use windlass_core::{JobFilter, JobId};

/// The form of what follows; another one in a later release is told apart by it.
const VERSION: u8 = 1;
const ID: usize = 16;
const HASH: usize = 8;

/// The place before this id in the list that the filter makes.
pub(crate) fn write(before: JobId, filter: &JobFilter) -> String {
    let mut bytes = Vec::with_capacity(1 + ID + HASH);
    bytes.push(VERSION);
    bytes.extend(before.as_uuid().as_bytes());
    bytes.extend(hash(filter));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The id in a cursor of a list with the same filter.
pub(crate) fn read(text: &str, filter: &JobFilter) -> Result<JobId, &'static str> {
    let parse = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (id, of) = rest.split_first_chunk::<ID>()?;
        (*version == VERSION && of.len() == HASH)
            .then(|| (uuid::Uuid::from_bytes(*id).into(), of == hash(filter)))
    };
    match parse() {
        Some((id, true)) => Ok(id),
        Some((_, false)) => Err("belongs to a list with another filter; leave it out to begin anew"),
        None => Err("give the next_cursor of an earlier answer"),
    }
}

fn hash(filter: &JobFilter) -> [u8; HASH] {
    // What is not given is not in it, so that filters which a later release adds leave cursors as they are.
    let text = serde_json::to_vec(filter).unwrap_or_default();
    let mut hash = [0; HASH];
    hash.copy_from_slice(&Sha256::digest(text)[..HASH]);
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_for_one_filter() {
        let any = JobFilter::default();
        let mail = JobFilter { queue: "mail".parse().ok(), ..any.clone() };
        let id = JobId::new();
        assert_eq!(read(&write(id, &any), &any), Ok(id));
        assert_eq!(read(&write(id, &mail), &mail), Ok(id));
        assert!(read(&write(id, &mail), &any).unwrap_err().contains("another filter"));
        let text = write(id, &any);
        for wrong in ["", "1", &text[1..], &format!("{text}AA"), &format!("B{}", &text[1..])] {
            assert!(read(wrong, &any).unwrap_err().contains("next_cursor"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(text in ".*") {
            let _ = read(&text, &JobFilter::default());
        }
    }
}
