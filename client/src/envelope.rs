use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, KeyInit as _, Payload},
};
use chrono::Utc;
use futures::{TryStreamExt as _, stream::FuturesUnordered};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::{RawValue, to_raw_value};
use windlass_core::{JobId, JobTemplate, NewJob, Outcome, Unique};

use crate::objects::{Objects, ObjectsError, payload_name, result_name};

/// What an envelope begins with, letter for letter. A payload or result of a user's that has this key is refused, so that
/// whatever begins so is ours.
const MARK: &str = "{\"$windlass\":";
const RESERVED: &str = "$windlass";
/// What a reference to an object begins with.
const REFERENCE: &str = "{\"$windlass\":{\"object\":";
/// Objects written at once for the jobs of one workflow.
const AT_ONCE: usize = 16;
/// Of the nonce before each ciphertext, which is long enough to be chosen at random.
const NONCE: usize = 24;

/// What lies between the JSON that handlers and clients see and the JSON that the store keeps: encryption, the limit of
/// results, and the object store for what is large. Everything that goes into the store or comes out of it passes here once.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The first one encrypts, all of them decrypt.
    keys: Vec<EncryptionKey>,
    result_max: usize,
    result_ttl: Option<Duration>,
    objects: Option<Objects>,
}

/// What a sealed text is, which is part of what is authenticated: a result does not pass for a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the handler gets.
    Payload,
    /// What it returned.
    Result,
    /// What it keeps for its next attempt.
    Checkpoint,
    /// What a webhook's deliveries are signed with.
    Secret,
}

/// Why a text cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The user's object has our key.
    #[error("the key \"$windlass\" is reserved; rename it")]
    ReservedKey,
    /// The result is larger than allowed.
    #[error(
        "the result has {size} bytes of JSON, and result_max allows {limit}; raise that setting of the worker, or keep the \
         data elsewhere and return where it is"
    )]
    ResultTooLarge {
        /// Its size.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It was encrypted under a key that is not there.
    #[error(
        "it is encrypted under the key {0}, which encryption_keys does not have; add that key after the first one"
    )]
    UnknownKey(String),
    /// It is damaged, belongs to another job, or the key is another one under the same name.
    #[error(
        "it cannot be decrypted with the key {0}: it was altered, or encryption_keys has another key under that name"
    )]
    Altered(String),
    /// It is, or should be, in the object store.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// It has a form that this release does not know.
    #[error("it has a form that this release does not know; a newer release may have written it")]
    UnknownForm,
}

impl EnvelopeError {
    /// Whether nothing is wrong with the job, but with the object store.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Objects(error) if error.is_outage())
    }
}

/// What the row has of a text that is in the object store.
#[derive(Serialize, Deserialize)]
struct Reference {
    #[serde(rename = "$windlass")]
    inner: InnerReference,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InnerReference {
    object: String,
}

async fn move_out(objects: &Objects, name: String, text: &RawValue) -> Result<Box<RawValue>, EnvelopeError> {
    objects.keep(&name, text).await?;
    let reference = Reference { inner: InnerReference { object: name } };
    to_raw_value(&reference).map_err(|_| EnvelopeError::UnknownForm)
}

/// The object that a text refers to, if it does.
pub(crate) fn object_of(text: &RawValue) -> Option<String> {
    if !text.get().starts_with(REFERENCE) {
        return None;
    }
    serde_json::from_str::<Reference>(text.get()).ok().map(|reference| reference.inner.object)
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "$windlass")]
    inner: Inner,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    key: String,
    /// Base64 of the nonce and the ciphertext.
    data: String,
    /// Any job's, and not bound to the one it was sealed for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    any: bool,
}

impl Envelope {
    /// One that encrypts under the first of `keys`, if there is one, and refuses results of more than `result_max` bytes.
    #[must_use]
    pub const fn new(keys: Vec<EncryptionKey>, result_max: usize) -> Self {
        Self { keys, result_max, result_ttl: None, objects: None }
    }

    /// Has results kept for this long, where their kind says nothing else; `None` is as long as their jobs.
    #[must_use]
    pub const fn result_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.result_ttl = ttl;
        self
    }

    /// Keeps large payloads and results there.
    #[must_use]
    pub fn objects(mut self, objects: Option<Objects>) -> Self {
        self.objects = objects;
        self
    }

    /// Where large payloads and results are kept, if not in the store.
    #[must_use]
    pub const fn object_store(&self) -> Option<&Objects> {
        self.objects.as_ref()
    }

    /// Whether the object store, if there is one, takes what is given to it.
    ///
    /// # Errors
    /// [`ObjectsError::Config`] if someone has to do something about it, [`ObjectsError::Unavailable`] if it may pass.
    pub async fn check(&self) -> Result<(), ObjectsError> {
        match &self.objects {
            Some(objects) => objects.check().await,
            None => Ok(()),
        }
    }

    /// What the store keeps of a job's payload. That of a unique job may become another job's, whose payload it replaces,
    /// and so is bound to none, and does not leave its row if it may replace another.
    ///
    /// When it is `Ok`, a large one is in the object store: before its job is in the store, so that no job is ever without.
    pub(crate) async fn seal_job(&self, job: &mut NewJob) -> Result<(), EnvelopeError> {
        let id = job.unique.is_none().then_some(job.id);
        if let (Some(unique), true) = (&mut job.unique, self.objects.is_some() || !self.keys.is_empty()) {
            unique.bind(job.gating.tenant.as_ref(), &job.kind, &job.payload);
        }
        job.payload = self.seal_for(id, Part::Payload, std::mem::take(&mut job.payload))?;
        if let Some(objects) = &self.objects
            && objects.wants(job.payload.get().len())
            && !job.unique.as_deref().is_some_and(Unique::may_replace)
        {
            job.payload = move_out(objects, payload_name(job.id), &job.payload).await?;
        }
        Ok(())
    }

    /// The same of many jobs.
    pub(crate) async fn seal_jobs<'a>(
        &self,
        jobs: impl IntoIterator<Item = &'a mut NewJob>,
    ) -> Result<(), EnvelopeError> {
        let mut sealing = FuturesUnordered::new();
        for job in jobs {
            if sealing.len() >= AT_ONCE {
                sealing.try_next().await?;
            }
            sealing.push(self.seal_job(job));
        }
        sealing.try_collect().await
    }

    /// What the store keeps of a schedule's payload, which becomes that of its jobs, and so is bound to none. It stays in
    /// its row, since an object bears a job's name.
    pub(crate) fn seal_template(&self, job: &mut JobTemplate) -> Result<(), EnvelopeError> {
        if let (Some(unique), false) = (&mut job.unique, self.keys.is_empty()) {
            unique.bind(job.gating.tenant.as_ref(), &job.kind, &job.payload);
        }
        job.payload = self.seal_for(None, Part::Payload, std::mem::take(&mut job.payload))?;
        Ok(())
    }

    /// The payload as it was before.
    pub(crate) fn unseal_template(&self, job: &mut JobTemplate) -> Result<(), EnvelopeError> {
        // Any job's.
        job.payload = self.unseal(JobId::new(), Part::Payload, std::mem::take(&mut job.payload))?;
        Ok(())
    }

    /// Moves the result of a success that was sealed to the object store, if it is large. May be repeated after an error.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn move_out_result(
        &self,
        id: JobId,
        fence: u32,
        outcome: &mut Outcome,
    ) -> Result<(), EnvelopeError> {
        if let (Some(objects), Outcome::Succeeded { result: Some(result), keep }) = (&self.objects, outcome)
            && objects.wants(result.get().len())
            && object_of(result).is_none()
        {
            *result = move_out(objects, result_name(id, fence, *keep, Utc::now()), result).await?;
        }
        Ok(())
    }

    /// What the store keeps of a job's success, whose result is kept for `keep`, if its kind says so.
    ///
    /// # Errors
    /// A result that is too large, or has our key.
    pub fn seal_result(
        &self,
        id: JobId,
        result: Option<Box<RawValue>>,
        keep: Option<Duration>,
    ) -> Result<Outcome, EnvelopeError> {
        let keep = keep.or(self.result_ttl);
        let Some(result) = result else { return Ok(Outcome::Succeeded { result: None, keep }) };
        let (size, limit) = (result.get().len(), self.result_max);
        if size > limit {
            return Err(EnvelopeError::ResultTooLarge { size, limit });
        }
        let result = Some(self.seal(id, Part::Result, result)?);
        Ok(Outcome::Succeeded { result, keep })
    }

    /// What the store keeps of a text.
    ///
    /// # Errors
    /// A text that has our key.
    pub fn seal(&self, id: JobId, part: Part, text: Box<RawValue>) -> Result<Box<RawValue>, EnvelopeError> {
        self.seal_for(Some(id), part, text)
    }

    fn seal_for(
        &self,
        id: Option<JobId>,
        part: Part,
        text: Box<RawValue>,
    ) -> Result<Box<RawValue>, EnvelopeError> {
        if has_reserved_key(text.get()) {
            return Err(EnvelopeError::ReservedKey);
        }
        let Some(key) = self.keys.first() else { return Ok(text) };
        let nonce = XNonce::generate();
        let associated = associated(id, part);
        let payload = Payload { msg: text.get().as_bytes(), aad: associated.as_bytes() };
        // Only a text of more than 256 GiB cannot be encrypted.
        let cipher = key.cipher().encrypt(&nonce, payload);
        let cipher = cipher.map_err(|_| EnvelopeError::Altered(key.id.clone()))?;
        let data = BASE64_STANDARD.encode([nonce.as_slice(), &cipher].concat());
        let sealed = Sealed { inner: Inner { key: key.id.clone(), data, any: id.is_none() } };
        to_raw_value(&sealed).map_err(|_| EnvelopeError::UnknownForm)
    }

    /// The text that was sealed, wherever it is kept; one that was not is given back as it is.
    ///
    /// # Errors
    /// When the key or the object is missing, or what is there is not what was sealed.
    pub async fn open(
        &self,
        id: JobId,
        part: Part,
        text: Box<RawValue>,
    ) -> Result<Box<RawValue>, EnvelopeError> {
        match (object_of(&text), &self.objects) {
            (None, _) => self.unseal(id, part, text),
            (Some(name), None) => Err(ObjectsError::NotSet(name).into()),
            (Some(name), Some(objects)) => self.unseal(id, part, objects.fetch(&name).await?),
        }
    }

    /// The text that was sealed, of one that never leaves its row.
    pub(crate) fn unseal(
        &self,
        id: JobId,
        part: Part,
        text: Box<RawValue>,
    ) -> Result<Box<RawValue>, EnvelopeError> {
        if !text.get().starts_with(MARK) {
            return Ok(text);
        }
        let sealed: Sealed = serde_json::from_str(text.get()).map_err(|_| EnvelopeError::UnknownForm)?;
        let Inner { key: id_of_key, data, any } = sealed.inner;
        let Some(key) = self.keys.iter().find(|key| key.id == id_of_key) else {
            return Err(EnvelopeError::UnknownKey(id_of_key));
        };
        let altered = || EnvelopeError::Altered(id_of_key.clone());
        let data = BASE64_STANDARD.decode(data).map_err(|_| altered())?;
        let (nonce, cipher) = data.split_at_checked(NONCE).ok_or_else(altered)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| altered())?;
        let associated = associated((!any).then_some(id), part);
        let payload = Payload { msg: cipher, aad: associated.as_bytes() };
        let plain = key.cipher().decrypt(&nonce, payload).map_err(|_| altered())?;
        let plain = String::from_utf8(plain).map_err(|_| altered())?;
        RawValue::from_string(plain).map_err(|_| altered())
    }
}

impl Default for Envelope {
    /// No encryption, and results of up to 1 MiB.
    fn default() -> Self {
        Self::new(Vec::new(), 1024 * 1024)
    }
}

/// What is authenticated with a text: whose it is, and what.
fn associated(id: Option<JobId>, part: Part) -> String {
    match id {
        Some(id) => format!("windlass {id} {part:?}"),
        None => format!("windlass any {part:?}"),
    }
}

/// Whether a text is an object with our key, however that is written.
fn has_reserved_key(text: &str) -> bool {
    // Most texts are told by their looks.
    if !text.trim_start().starts_with('{') || !(text.contains(RESERVED) || text.contains("\\u")) {
        return false;
    }
    let fields = serde_json::from_str::<std::collections::BTreeMap<String, &RawValue>>(text);
    fields.is_ok_and(|fields| fields.contains_key(RESERVED))
}

/// A key and its name, written `name:base64`. The key never shows in `Debug` or serialised form.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey {
    id: String,
    key: [u8; 32],
}

impl EncryptionKey {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.into())
    }
}

/// A text that is no key. It does not say what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an encryption key: write name:key, the name 1 to 32 ASCII letters, digits, '-' or '_', the key 32 bytes in base64, \
     such as `openssl rand -base64 32` makes"
)]
pub struct InvalidKey;

impl FromStr for EncryptionKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (id, key) = text.split_once(':').ok_or(InvalidKey)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(InvalidKey);
        }
        let key = BASE64_STANDARD.decode(key).map_err(|_| InvalidKey)?;
        Ok(Self { id: id.to_owned(), key: key.try_into().map_err(|_| InvalidKey)? })
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.id)
    }
}

impl<'de> Deserialize<'de> for EncryptionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for EncryptionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn key(id: &str, byte: u8) -> EncryptionKey {
        EncryptionKey { id: id.into(), key: [byte; 32] }
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.into()).unwrap()
    }

    fn under(keys: &[EncryptionKey]) -> Envelope {
        Envelope::new(keys.to_vec(), 1000)
    }

    #[test]
    fn what_was_sealed_is_opened_and_keys_rotate() {
        let (old, new) = (key("old", 1), key("new", 2));
        let id = JobId::new();
        let text = "{\"to\":  \"hunter2\"}";
        let sealed = under(std::slice::from_ref(&old)).seal(id, Part::Payload, raw(text)).unwrap();
        assert!(!sealed.get().contains("hunter2") && sealed.get().starts_with(MARK));
        let open = |keys: &[EncryptionKey], id, part| {
            under(keys).unseal(id, part, sealed.clone()).map(|text| text.get().to_owned())
        };
        assert_eq!(open(&[new.clone(), old.clone()], id, Part::Payload).unwrap(), text, "byte for byte");
        assert_eq!(
            open(std::slice::from_ref(&new), id, Part::Payload),
            Err(EnvelopeError::UnknownKey("old".into()))
        );
        assert_eq!(open(&[], id, Part::Payload), Err(EnvelopeError::UnknownKey("old".into())));
        let altered = Err(EnvelopeError::Altered("old".into()));
        assert_eq!(open(std::slice::from_ref(&old), JobId::new(), Part::Payload), altered, "of another job");
        assert_eq!(open(std::slice::from_ref(&old), id, Part::Result), altered, "another part");
        assert_eq!(open(&[key("old", 3)], id, Part::Payload), altered, "another key of that name");
        let again = under(&[new, old]).seal(id, Part::Payload, raw(text)).unwrap();
        assert!(again.get().contains("\"new\""), "the first key encrypts");
        assert_ne!(again.get(), sealed.get());
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        let envelope = under(&[key("k", 1)]);
        let id = JobId::new();
        let sealed = envelope.seal(id, Part::Result, raw("12345")).unwrap();
        let text = sealed.get();
        let data = text.rfind(':').unwrap() + 2..text.len() - 3;
        for at in data {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = raw(&String::from_utf8(bytes).unwrap());
            let opened = envelope.unseal(id, Part::Result, altered);
            assert!(opened.is_err(), "byte {at}");
        }
        for text in [
            "{\"$windlass\":1}",
            "{\"$windlass\":{}}",
            "{\"$windlass\":{\"key\":\"k\",\"data\":\"\",\"x\":1}}",
        ] {
            assert_eq!(envelope.unseal(id, Part::Result, raw(text)).unwrap_err(), EnvelopeError::UnknownForm);
        }
        let short = raw("{\"$windlass\":{\"key\":\"k\",\"data\":\"AAAA\"}}");
        assert!(envelope.unseal(id, Part::Result, short).is_err());
    }

    #[test]
    fn our_key_is_reserved_however_it_is_written() {
        let envelope = Envelope::default();
        let id = JobId::new();
        for text in
            ["{\"$windlass\":1}", " { \"a\" : 2, \"$windlass\" : null }", "{\"\\u0024wind\\u006cass\":1}"]
        {
            let refused = envelope.seal(id, Part::Payload, raw(text)).unwrap_err();
            assert_eq!(refused, EnvelopeError::ReservedKey, "{text}");
        }
        for text in
            ["\"$windlass\"", "{\"a\":{\"$windlass\":1}}", "[{\"$windlass\":1}]", "{\"windlass\":1}", "1"]
        {
            assert_eq!(envelope.seal(id, Part::Payload, raw(text)).unwrap().get(), text);
        }
    }

    #[test]
    fn results_have_a_limit() {
        let (day, hour) = (Duration::from_secs(86_400), Duration::from_secs(3600));
        let envelope = Envelope::new(Vec::new(), 5).result_ttl(Some(day));
        let id = JobId::new();
        let sealed = |result: Option<&str>, keep| match envelope.seal_result(id, result.map(raw), keep) {
            Ok(Outcome::Succeeded { result, keep }) => {
                Ok((result.map(|result| result.get().to_owned()), keep))
            }
            Ok(outcome) => panic!("{outcome:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(sealed(Some("12345"), None).unwrap(), (Some("12345".into()), Some(day)));
        assert_eq!(sealed(None, Some(hour)).unwrap(), (None, Some(hour)), "its kind's own time");
        let refused = sealed(Some("123456"), None).unwrap_err();
        assert_eq!(refused, EnvelopeError::ResultTooLarge { size: 6, limit: 5 });
        assert!(refused.to_string().contains("result_max"));
    }

    #[test]
    fn keys_are_read_and_never_shown() {
        let text = format!("k-1:{}", BASE64_STANDARD.encode([7; 32]));
        let key: EncryptionKey = text.parse().unwrap();
        assert_eq!((key.id(), key.key), ("k-1", [7; 32]));
        let shown = format!("{key:?} {}", serde_json::to_string(&key).unwrap());
        assert!(!shown.contains("Bwc"), "{shown}");
        for bad in
            ["", "k", "k:", ":AAAA", "k:AAAA", "a b:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "hunter2"]
        {
            let error = bad.parse::<EncryptionKey>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"));
        }
    }
}
