//! The tables at the end.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    checker::{Case, RULES, Recovery, Violation, recoveries},
    evidence::Evidence,
    history::Verdict,
};

/// How many violations of a rule are told; all are counted.
const SHOWN: usize = 10;

/// Everything there is to tell.
pub(crate) fn report(evidence: &Evidence, violations: &[Violation]) -> String {
    let case = Case::new(evidence);
    let mut text = String::new();
    let mut table = |title: &str, rows: Vec<(String, String)>| {
        let _ = writeln!(text, "\n{title}");
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:width$}  {value}");
        }
    };
    table("requests", requests(evidence));
    table("jobs", jobs(evidence));
    table("faults", faults(evidence));
    table("recovery, in seconds", recovery(&recoveries(&case)));
    let rules = RULES.iter().map(|(rule, _)| {
        let broken = violations.iter().filter(|violation| violation.rule == *rule).count();
        ((*rule).to_owned(), if broken == 0 { "holds".to_owned() } else { format!("BROKEN {broken} times") })
    });
    table("rules", rules.collect());
    for (rule, _) in RULES {
        for violation in violations.iter().filter(|violation| violation.rule == *rule).take(SHOWN) {
            let _ = writeln!(text, "\n{}: {}", violation.rule, violation.what);
        }
    }
    text
}

fn requests(evidence: &Evidence) -> Vec<(String, String)> {
    let count = |verdict: Verdict| evidence.calls.iter().filter(|call| call.verdict() == verdict).count();
    vec![
        ("answered".to_owned(), count(Verdict::Accepted).to_string()),
        ("refused".to_owned(), count(Verdict::Refused).to_string()),
        ("without a word".to_owned(), count(Verdict::Unknown).to_string()),
    ]
}

fn jobs(evidence: &Evidence) -> Vec<(String, String)> {
    let mut fates: BTreeMap<&str, usize> = BTreeMap::new();
    for job in &evidence.jobs {
        *fates.entry(job.state.as_str()).or_default() += 1;
    }
    let mut rows: Vec<_> =
        fates.iter().map(|(state, count)| ((*state).to_owned(), count.to_string())).collect();
    rows.push(("attempts".to_owned(), evidence.runs.len().to_string()));
    let unfinished = evidence.runs.iter().filter(|run| run.how.is_none()).count();
    rows.push(("of these, cut short by a process's end".to_owned(), unfinished.to_string()));
    rows
}

fn faults(evidence: &Evidence) -> Vec<(String, String)> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rows = Vec::new();
    for fault in &evidence.faults {
        match &fault.omitted {
            None => *kinds.entry(&fault.kind).or_default() += 1,
            Some(why) => rows.push((fault.kind.clone(), format!("#{} left out: {why}", fault.number))),
        }
    }
    let counted = kinds.iter().map(|(kind, count)| ((*kind).to_owned(), count.to_string()));
    counted.chain(rows).collect()
}

/// Those with a limit one by one, the others by kind.
fn recovery(recoveries: &[Recovery]) -> Vec<(String, String)> {
    let told = |took: Option<f64>| took.map_or("never".to_owned(), |took| format!("{took:.2}"));
    let mut rows = Vec::new();
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for recovery in recoveries {
        if let Some(limit) = recovery.limit {
            let value = format!("{} of at most {limit} ({} jobs)", told(recovery.took), recovery.jobs);
            rows.push((format!("#{} {}", recovery.fault, recovery.what), value));
        } else if let Some(took) = recovery.took {
            kinds.entry(&recovery.kind).or_default().push(took);
        }
    }
    for (kind, mut took) in kinds {
        took.sort_by(f64::total_cmp);
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        rows.push((
            format!("{kind}, beside others"),
            format!("median {median:.2}, most {most:.2}, of {}", took.len()),
        ));
    }
    rows
}
