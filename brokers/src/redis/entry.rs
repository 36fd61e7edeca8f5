use redis::{FromRedisValue, Value};

/// The field of an entry that holds the message.
pub(super) const FIELD: &str = "m";

/// Where an entry is: the lane by its place in the subscription, and the entry's id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) lane: usize,
    milliseconds: u64,
    sequence: u64,
}

/// An entry taken from a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// Empty where the entry is not one of ours.
    pub(super) payload: Vec<u8>,
}

impl Place {
    /// The id as Redis writes it.
    pub(super) fn id(self) -> String {
        format!("{}-{}", self.milliseconds, self.sequence)
    }
}

/// Reads a list of entries of `lane`. An entry deleted meanwhile has no fields, and is left out.
pub(super) fn entries(lane: usize, list: Value) -> Option<Vec<Entry>> {
    let entry = |value: Value| {
        let [id, fields] = <[Value; 2]>::try_from(array(value)?).ok()?;
        let id = String::from_redis_value(id).ok()?;
        let (milliseconds, sequence) = id.split_once('-')?;
        let place =
            Place { lane, milliseconds: milliseconds.parse().ok()?, sequence: sequence.parse().ok()? };
        Some((place, fields))
    };
    let mut found = Vec::new();
    for value in array(list)? {
        let (place, fields) = entry(value)?;
        if fields != Value::Nil {
            found.push(Entry { place, payload: payload(array(fields)?) });
        }
    }
    Some(found)
}

fn payload(fields: Vec<Value>) -> Vec<u8> {
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if let (Value::BulkString(name), Value::BulkString(value)) = (name, value)
            && name == FIELD.as_bytes()
        {
            return value;
        }
    }
    Vec::new()
}

/// The elements of an array; of nil, none.
pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn reads_ours_and_others() {
        let list = Value::Array(vec![
            Value::Array(vec![
                text("5-1"),
                Value::Array(vec![text("x"), text("y"), text("m"), text("bytes")]),
            ]),
            Value::Array(vec![text("5-2"), Value::Nil]),
            Value::Array(vec![text("6-0"), Value::Array(vec![text("x"), text("y")])]),
        ]);
        let found = entries(2, list).unwrap();
        let found: Vec<_> = found.iter().map(|entry| (entry.place.id(), entry.payload.as_slice())).collect();
        assert_eq!(found, [("5-1".into(), b"bytes".as_slice()), ("6-0".into(), b"")]);
        assert_eq!(entries(0, Value::Nil), Some(Vec::new()));
        for wrong in
            [Value::Int(1), Value::Array(vec![Value::Int(1)]), Value::Array(vec![Value::Array(vec![])])]
        {
            assert_eq!(entries(0, wrong), None);
        }
    }
}
