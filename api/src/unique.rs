use windlass_core::{InvalidUnique, OnConflict, Unique};

use crate::{
    body::Fields,
    enqueue::{nested, positive_duration},
    problem::FieldError,
};

/// Reads the rule that `unique`, `debounce` or `throttle` give, of which a job has one at most.
pub(crate) fn take(fields: &mut Fields<'_>, errors: &mut Vec<FieldError>) -> Option<Unique> {
    let rules = [
        ("unique", nested(fields, "unique", errors, unique)),
        ("debounce", nested(fields, "debounce", errors, debounce)),
        ("throttle", nested(fields, "throttle", errors, throttle)),
    ];
    let mut given = rules.into_iter().filter_map(|(name, rule)| Some((name, rule?)));
    let first = given.next();
    if let Some((name, _)) = given.next() {
        errors.push(FieldError::new(name, "give one of unique, debounce and throttle"));
    }
    first.map(|(_, rule)| rule)
}

fn unique(mut fields: Fields<'_>, e: &mut Vec<FieldError>) -> Option<Unique> {
    let key = fields.take("key", e, |key: String| Unique::by_key(key).map_err(text));
    let by_fields = fields.take("fields", e, |fields: Vec<String>| Unique::by_fields(fields).map_err(text));
    let period = fields.take("for", e, |period: String| positive_duration(&period));
    let on_conflict = fields.take("on_conflict", e, |text: String| match text.as_str() {
        "existing" => Ok(OnConflict::Existing),
        "replace" => Ok(OnConflict::Replace),
        "replace_all" => Ok(OnConflict::ReplaceAll),
        "refuse" => Ok(OnConflict::Refuse),
        _ => Err("use \"existing\", \"replace\", \"replace_all\" (its time as well) or \"refuse\"".into()),
    });
    unknown(fields, "key, fields, for, on_conflict", e);
    let unique = match (key, by_fields) {
        (Some(unique), None) | (None, Some(unique)) => unique,
        (Some(_), Some(_)) => {
            e.push(FieldError::new("fields", "give either key or fields"));
            return None;
        }
        (None, None) => {
            if e.is_empty() {
                e.push(FieldError::new("key", "required, unless fields are given"));
            }
            return None;
        }
    };
    let unique = unique.on_conflict(on_conflict.unwrap_or_default());
    Some(period.map_or(unique.clone(), |period| unique.within(period)))
}

fn debounce(mut fields: Fields<'_>, e: &mut Vec<FieldError>) -> Option<Unique> {
    let key = required(&mut fields, "key", e);
    let delay = fields.take("delay", e, |delay: String| positive_duration(&delay));
    let max_wait = fields.take("max_wait", e, |wait: String| positive_duration(&wait));
    unknown(fields, "key, delay, max_wait", e);
    if delay.is_none() && e.is_empty() {
        e.push(FieldError::new("delay", "required: how long after the last enqueue the job starts"));
    }
    let unique = checked(Unique::debounce(key?, delay?), e)?;
    Some(max_wait.map_or(unique.clone(), |wait| unique.max_wait(wait)))
}

fn throttle(mut fields: Fields<'_>, e: &mut Vec<FieldError>) -> Option<Unique> {
    let key = required(&mut fields, "key", e);
    let period = fields.take("period", e, |period: String| positive_duration(&period));
    unknown(fields, "key, period", e);
    if period.is_none() && e.is_empty() {
        e.push(FieldError::new("period", "required: in what time there is one job at most"));
    }
    checked(Unique::throttle(key?, period?), e)
}

fn required(fields: &mut Fields<'_>, name: &str, e: &mut Vec<FieldError>) -> Option<String> {
    let found = fields.take(name, e, Ok::<String, String>);
    if found.is_none() && e.is_empty() {
        e.push(FieldError::new(name, "required"));
    }
    found
}

fn checked(unique: Result<Unique, InvalidUnique>, e: &mut Vec<FieldError>) -> Option<Unique> {
    unique.map_err(|error| e.push(FieldError::new("key", text(error)))).ok()
}

fn unknown(fields: Fields<'_>, known: &str, e: &mut Vec<FieldError>) {
    for (name, _) in fields.rest("", e) {
        e.push(FieldError::new(&name, format!("unknown field; known are {known}")));
    }
}

fn text(error: InvalidUnique) -> String {
    error.to_string()
}
