use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
};

use serde_json::{Map, Value};
use windlass::prelude::*;

use crate::{Problem, Workspace, problem::decide, report::csv_problem, sketch::Sketch};

/// The payload of `dataset.aggregate`.
#[derive(Debug, Clone, Serialize, Deserialize, Job)]
#[job(kind = "dataset.aggregate", queue = "datasets", max_attempts = 5, timeout = "1h")]
pub struct AggregateDataset {
    /// The dataset, a file of the workspace: JSON lines when it ends with `.jsonl`, otherwise CSV.
    pub dataset: String,
    /// The column, or the member, whose values make the groups.
    pub group_by: String,
    /// The column, or the member, with the numbers.
    pub value: String,
}

/// The result of `dataset.aggregate`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Aggregation {
    /// Where the aggregates are, in the workspace's output.
    pub path: String,
    /// How many rows were read.
    pub rows: u64,
    /// How many groups there are.
    pub groups: usize,
}

/// Handles `dataset.aggregate`, on a thread of its own: it reads files.
///
/// Reads row by row, so that the dataset may be larger than memory. Idempotent: the name of the output follows from
/// the payload and its content from the dataset, and it replaces an older one in one step.
///
/// # Errors
/// Discarded when the payload or the dataset is unusable, else retried.
pub fn aggregate_dataset(
    job: AggregateDataset,
    ctx: Context,
    workspace: State<Workspace>,
) -> Result<Aggregation, JobError> {
    aggregate(&workspace, &job, &|| ctx.cancelled().is_cancelled()).map_err(decide)
}

/// Memory is bounded by the groups, so these are bounded.
const MOST_GROUPS: usize = 100_000;
const LONGEST_LINE: u64 = 1024 * 1024;

/// Aggregates the dataset, unless it is told to stop.
///
/// # Errors
/// See [`Problem`].
pub fn aggregate(
    workspace: &Workspace,
    job: &AggregateDataset,
    stop: &dyn Fn() -> bool,
) -> Result<Aggregation, Problem> {
    let mut groups = BTreeMap::<String, Aggregate>::new();
    let mut rows = 0;
    let each = |group: &str, value: f64| {
        if stop() {
            return Err(Problem::Stopped);
        }
        rows += 1;
        if let Some(aggregate) = groups.get_mut(group) {
            aggregate.add(value);
        } else if groups.len() < MOST_GROUPS {
            groups.entry(group.to_owned()).or_default().add(value);
        } else {
            return Err(Problem::content(&job.dataset, format!("more than {MOST_GROUPS} groups")));
        }
        Ok(())
    };
    if job.dataset.ends_with(".jsonl") {
        read_json_lines(workspace, job, each)?;
    } else {
        read_csv(workspace, job, each)?;
    }

    if let Some((group, _)) = groups.iter().find(|(_, aggregate)| !aggregate.sum.is_finite()) {
        return Err(Problem::content(&job.dataset, format!("the sum of {group:?} is too large")));
    }
    let summaries: BTreeMap<_, _> =
        groups.iter().map(|(group, aggregate)| (group, aggregate.summary())).collect();
    let document = serde_json::json!({
        "dataset": job.dataset,
        "group_by": job.group_by,
        "value": job.value,
        "rows": rows,
        "percentile_error": Sketch::ERROR,
        "groups": summaries,
    });
    let path = format!("aggregates/{}/{}-by-{}.json", job.dataset, job.value, job.group_by);
    workspace.write(&path, format!("{document:#}\n").as_bytes())?;
    Ok(Aggregation { path, rows, groups: groups.len() })
}

#[derive(Debug)]
struct Aggregate {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    sketch: Sketch,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, sketch: Sketch::default() }
    }
}

impl Aggregate {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sketch.add(value);
    }

    fn summary(&self) -> Value {
        let percentile = |percent| Some(self.sketch.percentile(percent)?.clamp(self.min, self.max));
        serde_json::json!({
            "count": self.count,
            "sum": self.sum,
            "mean": self.sum / self.count as f64,
            "min": self.min,
            "max": self.max,
            "p50": percentile(50),
            "p90": percentile(90),
            "p99": percentile(99),
        })
    }
}

fn read_csv(
    workspace: &Workspace,
    job: &AggregateDataset,
    mut each: impl FnMut(&str, f64) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut reader = csv::Reader::from_reader(BufReader::new(workspace.open(&job.dataset)?));
    let headers = reader.headers().map_err(|error| csv_problem(&job.dataset, error))?;
    let column = |name: &str| {
        let found = headers.iter().position(|header| header == name);
        found.ok_or_else(|| Problem::content(&job.dataset, format!("there is no column {name:?}")))
    };
    let (group_by, value) = (column(&job.group_by)?, column(&job.value)?);

    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| csv_problem(&job.dataset, error))? {
        // The reader has made sure that every row is as long as the headers.
        let text = record.get(value).unwrap_or_default();
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        let number = number.ok_or_else(|| {
            let line = record.position().map_or(0, csv::Position::line);
            broken(job, line, format!("{} {text:?} is no number", job.value))
        })?;
        each(record.get(group_by).unwrap_or_default(), number)?;
    }
    Ok(())
}

fn read_json_lines(
    workspace: &Workspace,
    job: &AggregateDataset,
    mut each: impl FnMut(&str, f64) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut reader = BufReader::new(workspace.open(&job.dataset)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = reader.by_ref().take(LONGEST_LINE);
        if limited.read_until(b'\n', &mut line).map_err(Problem::io(&job.dataset))? == 0 {
            break;
        }
        if limited.limit() == 0 && !line.ends_with(b"\n") {
            return Err(broken(job, number, format!("longer than {LONGEST_LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row: Map<String, Value> = serde_json::from_slice(&line)
            .map_err(|error| broken(job, number, format!("no JSON object: {error}")))?;
        let value = row.get(&job.value).and_then(Value::as_f64);
        let value = value.ok_or_else(|| broken(job, number, format!("{} is no number", job.value)))?;
        match row.get(&job.group_by) {
            Some(Value::String(group)) => each(group, value)?,
            Some(group @ (Value::Number(_) | Value::Bool(_))) => each(&group.to_string(), value)?,
            _ => {
                return Err(broken(
                    job,
                    number,
                    format!("{} is no text, number or truth value", job.group_by),
                ));
            }
        }
    }
    Ok(())
}

fn broken(job: &AggregateDataset, line: u64, what: String) -> Problem {
    Problem::Row { path: job.dataset.clone(), line, what }
}
