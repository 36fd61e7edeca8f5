//! What the stores have in common about keys.

use sqlx::Error;

/// A hash as a store has it.
pub(crate) fn hash(bytes: Vec<u8>) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::Decode("a key's hash has another length".into()))
}
