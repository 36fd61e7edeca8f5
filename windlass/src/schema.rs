//! How `#[derive(Job)]` finds the JSON Schema of a payload type: of the two traits, the compiler takes the one that needs
//! no reference more, which is [`WithSchema`] wherever the type has a schema.

use std::{fmt, marker::PhantomData};

use serde_json::Value;

/// Stands for a payload type.
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// For the type.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only for generated code")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for Probe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

/// Of types with a schema.
pub trait WithSchema {
    /// The schema.
    fn schema(&self) -> Option<Value>;
}

/// Of all types.
pub trait WithoutSchema {
    /// None.
    fn schema(&self) -> Option<Value>;
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> WithSchema for Probe<T> {
    fn schema(&self) -> Option<Value> {
        // Of what is read, which may differ from what is written.
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_deserialize();
        Some(settings.into_generator().into_root_schema_for::<T>().to_value())
    }
}

impl<T> WithoutSchema for &Probe<T> {
    fn schema(&self) -> Option<Value> {
        None
    }
}
