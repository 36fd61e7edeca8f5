//! Statements as templates, filled from the state table, so that no driver has its own idea of it.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use windlass_core::{State, TRANSITIONS};

/// Fills a statement: `{schema}` by the schema's name, `{now}` by what tells the time, `{queued}` by a state's code, `{from:claim}` by the codes of
/// the states in which an event is allowed (separated by commas) and `{to:claim}` by the code it leads to.
pub(crate) fn fill(template: &str, schema: &str, now: &str) -> SqlStr {
    let mut text = template.replace("{now}", now).replace("{schema}", schema);
    for state in State::ALL {
        text = text.replace(&format!("{{{state}}}"), &state.code().to_string());
    }
    for transition in TRANSITIONS {
        let event = format!("{:?}", transition.event).to_lowercase();
        let sources: Vec<_> = transition.event.sources().map(|s| s.code().to_string()).collect();
        text = text.replace(&format!("{{from:{event}}}"), &sources.join(", "));
        text = text.replace(&format!("{{to:{event}}}"), &transition.to.code().to_string());
    }
    // Only our own texts and a checked schema name have gone into it.
    AssertSqlSafe(text).into_sql_str()
}

/// What is between `{+` and `+}` stays, or goes: for two statements of which one does more than the other.
pub(crate) fn with_extras(template: &str, keep: bool) -> String {
    let mut text = String::with_capacity(template.len());
    for (at, piece) in template.split("{+").enumerate() {
        match piece.split_once("+}") {
            Some((extra, rest)) if at > 0 => text.extend([if keep { extra } else { "" }, rest]),
            _ => text.push_str(piece),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_stay_or_go() {
        let template = "a{+ b+} c{+ d+}";
        assert_eq!(with_extras(template, true), "a b c d");
        assert_eq!(with_extras(template, false), "a c");
    }

    #[test]
    fn fills_states_and_events() {
        let filled = fill(
            "{schema}.jobs {queued} ({from:due}) {to:due} {from:leaselost} {now}",
            "w",
            "{schema}.now()",
        );
        assert_eq!(filled.as_str(), "w.jobs 1 (0, 3) 1 2 w.now()");
    }
}
