//! Keys of the HTTP API: who may do what, for whom.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{StoreError, Tenant, Timestamp, text::text};

/// Keeps the keys of the HTTP API: hashes of their secrets, never the secrets. Every method is one transaction, and may
/// be repeated after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Adds a key. One whose id exists is left as it is.
    async fn create_key(&self, key: &NewKey) -> Result<(), StoreError>;

    /// All keys there have been, oldest first.
    async fn all_keys(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// The keys that are good now: neither revoked nor expired.
    async fn live_keys(&self) -> Result<Vec<LiveKey>, StoreError>;

    /// Gives a key another secret; the one before it is good for `grace` more, and no older one is. `false`: there is no
    /// such key, or it has been revoked.
    async fn rotate_key(&self, id: &KeyId, hash: [u8; 32], grace: Duration) -> Result<bool, StoreError>;

    /// Ends a key, with all its secrets. `false`: there is no such key.
    async fn revoke_key(&self, id: &KeyId) -> Result<bool, StoreError>;

    /// Notes that these keys are in use, where that was last noted more than a minute ago.
    async fn keys_used(&self, ids: &[KeyId]) -> Result<(), StoreError>;
}

text!(
    /// The name of a key, which is no secret: 12 hexadecimal digits.
    KeyId,
    InvalidKeyId,
    text => match text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        true => Ok(Arc::from(text)),
        false => Err(InvalidKeyId),
    },
    12,
    "^[0-9a-f]{12}$"
);

/// A text that is no key's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a key: 12 hexadecimal digits, which follow the wl_ of the key")]
pub struct InvalidKeyId;

/// A key to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its id, chosen by the caller, so that the call may be repeated.
    pub id: KeyId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// What people know it by.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// For whom, if not for everyone.
    pub tenant: Option<Tenant>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A key, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub id: KeyId,
    /// What people know it by.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// For whom, if not for everyone.
    pub tenant: Option<Tenant>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Since when it has been revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, within a minute or so.
    pub last_used_at: Option<Timestamp>,
    /// Until when the secret before the newest one is good, if it is.
    pub old_until: Option<Timestamp>,
}

/// A key that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    /// Its id.
    pub id: KeyId,
    /// SHA-256 of each secret that it may be used with.
    pub hashes: Vec<[u8; 32]>,
    /// What it may do.
    pub scopes: Scopes,
    /// For whom, if not for everyone.
    pub tenant: Option<Tenant>,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Make jobs and workflows.
    Enqueue = 1,
    /// See things.
    Read = 2,
    /// Cancel, retry, delete, pause, resume.
    Operate = 4,
    /// Define schedules and limits; and all of the above.
    Admin = 8,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Enqueue, Self::Read, Self::Operate, Self::Admin];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope; use enqueue, read, operate or admin")]
pub struct UnknownScope(String);

/// Some scopes. The default is none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether it lets one do what the scope is about: [`Admin`](Scope::Admin) is about everything.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope as u8 | Scope::Admin as u8) != 0
    }

    /// Whether it lets one do nothing at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |all, scope| all | scope as u8))
    }
}

/// The names, with a space between them.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Scope::ALL.into_iter().filter(|scope| self.0 & *scope as u8 != 0);
        if let Some(first) = names.next() {
            f.write_str(first.as_str())?;
        }
        names.try_for_each(|scope| write!(f, " {scope}"))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    /// Names with spaces between them.
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split_whitespace().map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_allows_everything_and_the_others_themselves() {
        for scope in Scope::ALL {
            assert!(Scopes::from_iter([Scope::Admin]).allow(scope));
            assert!(!Scopes::default().allow(scope));
            let others: Scopes =
                Scope::ALL.into_iter().filter(|other| *other != scope && *other != Scope::Admin).collect();
            assert!(!others.allow(scope), "{others} {scope}");
        }
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let scopes: Scopes = "operate enqueue".parse().unwrap();
        assert_eq!(scopes.to_string(), "enqueue operate");
        assert_eq!("".parse(), Ok(Scopes::default()));
        assert!("read write".parse::<Scopes>().unwrap_err().to_string().contains("\"write\""));
    }

    #[test]
    fn ids_are_checked() {
        assert!("0123456789ab".parse::<KeyId>().is_ok());
        for bad in ["", "0123456789a", "0123456789ag", "0123456789AB", "0123456789abc"] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
