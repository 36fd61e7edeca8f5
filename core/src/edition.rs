use std::fmt;

use crate::Timestamp;

/// Which system this is: the same for all processes that use its tables, and for no others, also where those were copied
/// from them. By it systems keep apart on servers that they share, of other kinds than the store.
///
/// It is a secret of the store's, so that what bears a mark made with it comes from someone who can read the store.
#[derive(Clone, PartialEq, Eq)]
pub struct SystemId(String);

impl SystemId {
    /// As the store has it.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemId")
    }
}

/// A revision, and of what it is one. Two that are equal but for their time are of one state of affairs: between them no
/// job that was over has been changed, nor has the store been put back to an earlier state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// Of which system.
    pub system: SystemId,
    /// In which history of it: another one after a failover or the restoring of a backup, which may have lost commits.
    pub history: String,
    /// The [revision](crate::Operations::revision).
    pub revision: u64,
    /// When the store was asked, by its clock.
    pub at: Timestamp,
}
