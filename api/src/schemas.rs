//! Payloads against the JSON Schemas that workers have published: what no handler could read is not accepted.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use jsonschema::Validator;
use serde_json::{Value, value::RawValue};
use windlass_core::{Kind, KindInfo};

use crate::problem::{FieldError, Problem};

/// How many mistakes of a payload an answer lists.
const MOST: usize = 20;

/// The schemas of kinds, compiled when they are first used and kept until they change.
#[derive(Default)]
pub(crate) struct Schemas {
    compiled: RwLock<HashMap<Kind, Arc<Compiled>>>,
}

struct Compiled {
    /// What they were compiled from.
    info: Arc<KindInfo>,
    /// By version; those that cannot be compiled are not there.
    validators: BTreeMap<u16, Arc<Validator>>,
}

impl Schemas {
    /// Refuses a payload that does not fit the schema of its version. One without a schema is anything.
    pub(crate) fn check(
        &self,
        info: &Arc<KindInfo>,
        version: u16,
        payload: &RawValue,
    ) -> Result<(), Problem> {
        if !info.schemas.contains_key(&version) {
            return Ok(());
        }
        let compiled = self.compiled(info);
        let Some(validator) = compiled.validators.get(&version) else { return Ok(()) };
        // A number beyond what can be read here is for the handler to judge.
        let Ok(payload) = serde_json::from_str::<Value>(payload.get()) else { return Ok(()) };
        let errors = validator.iter_errors(&payload).take(MOST).map(|error| {
            // Without the value, which may be long, and may be a secret.
            let detail = error.masked().to_string();
            FieldError::at(format!("/payload{}", error.instance_path()), detail)
        });
        let errors: Vec<FieldError> = errors.collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Problem::payload_misfit(info.kind.as_str(), version, errors))
        }
    }

    fn compiled(&self, info: &Arc<KindInfo>) -> Arc<Compiled> {
        let before = self.compiled.read().unwrap_or_else(PoisonError::into_inner).get(&info.kind).cloned();
        if let Some(same) = before.as_ref().filter(|before| Arc::ptr_eq(&before.info, info)) {
            return same.clone();
        }
        // Whoever comes at the same time does the same, and no harm.
        let mut validators = BTreeMap::new();
        for (version, schema) in &info.schemas {
            let kept = before.as_ref().filter(|before| before.info.schemas.get(version) == Some(schema));
            let validator = match kept {
                Some(before) => before.validators.get(version).cloned(),
                None => compile(&info.kind, *version, schema),
            };
            validators.extend(validator.map(|validator| (*version, validator)));
        }
        let compiled = Arc::new(Compiled { info: info.clone(), validators });
        let mut all = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(info.kind.clone(), compiled.clone());
        compiled
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").finish_non_exhaustive()
    }
}

fn compile(kind: &Kind, version: u16, schema: &str) -> Option<Arc<Validator>> {
    let schema = serde_json::from_str::<Value>(schema).map_err(|error| error.to_string());
    // It is not to fetch anything: a schema is whole, or is none.
    let validator =
        schema.and_then(|schema| jsonschema::options().offline().build(&schema).map_err(|e| e.to_string()));
    match validator {
        Ok(validator) => Some(Arc::new(validator)),
        Err(error) => {
            tracing::warn!(%kind, version, error, "a schema cannot be used, so payloads are not checked by it");
            None
        }
    }
}
