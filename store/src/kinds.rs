//! What the stores have in common about kinds.

use windlass_core::{Kind, KindInfo};

/// The kinds of a worker as they are kept with it: each with its version.
pub(crate) fn written(kinds: &[KindInfo]) -> Result<String, serde_json::Error> {
    let kinds: Vec<(&Kind, u16)> = kinds.iter().map(|info| (&info.kind, info.version)).collect();
    serde_json::to_string(&kinds)
}

/// The other way round.
pub(crate) fn read(kinds: &str) -> Result<Vec<(Kind, u16)>, serde_json::Error> {
    serde_json::from_str(kinds)
}

/// Kinds that come once for each of their schemas, next to each other, as one.
pub(crate) fn gathered(said: Vec<(KindInfo, Option<(u16, String)>)>) -> Vec<KindInfo> {
    let mut kinds: Vec<KindInfo> = Vec::new();
    for (info, schema) in said {
        if kinds.last().is_none_or(|last| last.kind != info.kind) {
            kinds.push(info);
        }
        if let (Some(last), Some((version, schema))) = (kinds.last_mut(), schema) {
            last.schemas.insert(version, schema);
        }
    }
    kinds
}
