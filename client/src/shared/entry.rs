//! A job as it lies in Redis: as the store has it, sealed or not, with a mark by which its readers know that someone wrote it
//! who can read the store, and under which edition.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use windlass_core::{Edition, JobId, JobRecord};

/// The form of what is written. Another one where a job's record changes, so that old and new processes do not misread each
/// other.
const FORM: u32 = 1;
/// Longer ones are left to the store, in bytes.
const LONGEST: usize = 32 * 1024;

/// The beginning of an entry.
const TAG: usize = 16;
const MARK: usize = 32;

/// Where the job lies, in a system's namespace.
pub(super) fn key(namespace: &str, id: JobId) -> String {
    format!("{namespace}:job.{FORM}:{id}")
}

/// What an edition's entries begin with.
pub(super) fn tag(edition: &Edition) -> [u8; TAG] {
    let digest = Sha256::new()
        .chain_update(edition.system.expose())
        .chain_update([0])
        .chain_update(&edition.history)
        .chain_update(edition.revision.to_be_bytes())
        .finalize();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&digest[..TAG]);
    tag
}

/// The job for the place of that [key](key); `None` for one that is too long.
pub(super) fn write(edition: &Edition, key: &str, job: &JobRecord) -> Option<Vec<u8>> {
    // Mostly it is the result, and then nothing need be written to know.
    if job.result.as_ref().is_some_and(|result| result.get().len() > LONGEST) {
        return None;
    }
    let body = serde_json::to_vec(job).ok().filter(|body| body.len() <= LONGEST)?;
    let tag = tag(edition);
    let mark = marking(edition, key, &tag, &body)?.finalize().into_bytes();
    Some([&tag[..], &mark[..], &body[..]].concat())
}

/// What an entry says under an edition.
#[derive(Debug)]
pub(super) enum Entry {
    True(Box<JobRecord>),
    /// It is of another edition, and may have been made untrue since.
    Old,
    /// No process of this system has written it like this.
    Garbage,
}

/// What was found at the key of a job.
pub(super) fn read(edition: &Edition, key: &str, id: JobId, bytes: &[u8]) -> Entry {
    let Some((head, body)) = bytes.split_at_checked(TAG + MARK) else { return Entry::Garbage };
    let (tag, mark) = head.split_at(TAG);
    if tag != self::tag(edition) {
        return Entry::Old;
    }
    let marked = marking(edition, key, tag, body).is_some_and(|mac| mac.verify_slice(mark).is_ok());
    let job = serde_json::from_slice::<JobRecord>(body).ok();
    match job.filter(|job| marked && job.id == id && job.state.is_terminal()) {
        Some(job) => Entry::True(Box::new(job)),
        None => Entry::Garbage,
    }
}

fn marking(edition: &Edition, key: &str, tag: &[u8], body: &[u8]) -> Option<Hmac<Sha256>> {
    // Keys of any length will do.
    let mac = Hmac::<Sha256>::new_from_slice(edition.system.expose().as_bytes()).ok()?;
    Some(mac.chain_update(key).chain_update(tag).chain_update(body))
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use windlass_core::{SystemId, Timestamp};

    use super::*;

    /// A whole record in the form of [`FORM`]: where this has to be changed, that has to be another number.
    const WRITTEN: &str = concat!(
        r#"{"id":"0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f","kind":"mail","queue":"letters","priority":1,"state":"dead","#,
        r#""attempt":2,"max_attempts":3,"created_at":"2031-01-02T03:04:05.000006Z","run_at":null,"#,
        r#""started_at":"2031-01-02T03:04:05.000007Z","finished_at":"2031-01-02T03:04:06Z","expires_at":null,"#,
        r#""deadline":"2031-01-03T00:00:00Z","version":4,"result":{"a": [1.0]},"#,
        r#""result_until":"2031-02-01T00:00:00Z","#,
        r#""errors":[{"attempt":1,"at":"2031-01-02T03:04:05.500Z","worker":"w1","message":"no"}],"#,
        r#""progress":{"value":0.1,"message":"half","at":"2031-01-02T03:04:05.250Z"},"labels":{"customer":"c1"},"#,
        r#""gating":{"tenant":"acme"},"cancel_requested":true}"#
    );

    fn edition(revision: u64) -> Edition {
        Edition {
            system: SystemId::new("secret/1/2/3".into()),
            history: "1/2".into(),
            revision,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn job() -> JobRecord {
        serde_json::from_str(WRITTEN).unwrap()
    }

    #[test]
    fn the_form_is_this_one() {
        assert_eq!(serde_json::to_string(&job()).unwrap(), WRITTEN);
    }

    #[test]
    fn an_entry_is_true_at_its_place_under_its_edition_only() {
        let (id, place) = (job().id, key("windlass:1", job().id));
        let entry = write(&edition(7), &place, &job()).unwrap();
        let Entry::True(found) = read(&edition(7), &place, id, &entry) else { panic!("it is not believed") };
        assert_eq!(format!("{found:?}"), format!("{:?}", job()));
        assert!(matches!(read(&edition(8), &place, id, &entry), Entry::Old));
        let history = Edition { history: "2/2".into(), ..edition(7) };
        assert!(matches!(read(&history, &place, id, &entry), Entry::Old));
        assert!(matches!(read(&edition(7), "windlass:2", id, &entry), Entry::Garbage));
        assert!(matches!(read(&edition(7), &place, JobId::new(), &entry), Entry::Garbage));
        for at in TAG..entry.len() {
            let mut changed = entry.clone();
            changed[at] ^= 1;
            assert!(matches!(read(&edition(7), &place, id, &changed), Entry::Garbage), "{at}");
        }
        for length in 0..TAG + MARK {
            assert!(matches!(read(&edition(7), &place, id, &entry[..length]), Entry::Garbage), "{length}");
        }
    }

    #[test]
    fn what_is_long_is_left_to_the_store() {
        let place = key("windlass:1", job().id);
        let with = |length: usize| JobRecord { result: to_raw_value(&"x".repeat(length)).ok(), ..job() };
        assert!(write(&edition(7), &place, &with(LONGEST - 1000)).is_some());
        assert!(write(&edition(7), &place, &with(LONGEST - 100)).is_none());
        assert!(write(&edition(7), &place, &with(10 * LONGEST)).is_none());
    }
}
