//! Following a job until it is over.

use serde_json::Value;

use crate::{
    Failure,
    operate::{Operator, cell, escaped},
};

/// `jobs watch`
pub(crate) async fn watch(operator: &Operator, id: &str, json: bool) -> Result<(), Failure> {
    let show = |job: &Value| if json { println!("{job}") } else { println!("{}", line(job)) };
    verdict(&until_over(operator, id, show).await?)
}

/// The job once it is over; until then, `show` sees it as it is and whenever it has changed.
pub(crate) async fn until_over(
    operator: &Operator,
    id: &str,
    show: impl Fn(&Value),
) -> Result<Value, Failure> {
    let path = format!("/v1/jobs/{}", escaped(id));
    // Says what is wrong with the id.
    let mut job = operator.get(&path).await?;
    let mut watch = operator.client().watch(id.parse().map_err(Failure::usage)?);
    let mut shown = Value::Null;
    loop {
        if job != shown {
            show(&job);
            shown.clone_from(&job);
        }
        if ["succeeded", "cancelled", "dead"].iter().any(|state| job["state"] == *state) {
            return Ok(job);
        }
        watch.next().await?;
        job = operator.get(&path).await?;
    }
}

/// A job in a line.
pub(crate) fn line(job: &Value) -> String {
    let mut line = format!(
        "{} {} attempt {}/{}",
        cell(&job["id"]),
        cell(&job["state"]),
        job["attempt"],
        job["max_attempts"]
    );
    let progress = &job["progress"];
    if let Some(value) = progress["value"].as_f64() {
        line.push_str(&format!(" {:.0}% {}", value * 100.0, cell(&progress["message"])));
    }
    if let Some(run_at) =
        job["run_at"].as_str().filter(|_| job["state"] == "retrying" || job["state"] == "scheduled")
    {
        line.push_str(&format!(" due {run_at}"));
    }
    let errors = job["errors"].as_array();
    if let Some(error) = errors.and_then(|errors| errors.last()).filter(|_| job["state"] != "succeeded") {
        line.push_str(&format!(": {}", cell(&error["message"])));
    }
    line.trim_end().to_owned()
}

/// A job that is over and has not succeeded is a failure.
pub(crate) fn verdict(job: &Value) -> Result<(), Failure> {
    match job["state"] == "succeeded" {
        true => Ok(()),
        false => Err(Failure::running(format!("the job is {}", cell(&job["state"])))),
    }
}
