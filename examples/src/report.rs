use std::{collections::BTreeMap, fmt::Write as _, io::BufReader};

use windlass::prelude::*;

use crate::{Problem, Workspace, problem::decide};

/// The payload of `report.build`.
#[derive(Debug, Clone, Serialize, Deserialize, Job)]
#[job(kind = "report.build", queue = "reports", max_attempts = 5, timeout = "5m")]
pub struct BuildReport {
    /// The orders, a CSV file of the workspace. Its columns `quantity` and `unit_price` are read.
    pub orders: String,
    /// The column whose values get a total each, such as `region`.
    pub group_by: String,
}

/// The result of `report.build`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where the report is, in the workspace's output.
    pub path: String,
    /// How many orders it covers.
    pub orders: u64,
    /// What they come to, such as `1234.50`.
    pub revenue: String,
}

/// Handles `report.build`, on a thread of its own: it reads files.
///
/// Idempotent: the report's name follows from the payload and its content from the orders, and it replaces an older
/// one in one step.
///
/// # Errors
/// Discarded when the payload or the orders are unusable, else retried.
pub fn build_report(job: BuildReport, ctx: Context, workspace: State<Workspace>) -> Result<Report, JobError> {
    report(&workspace, &job, &|| ctx.cancelled().is_cancelled()).map_err(decide)
}

/// Builds the report, unless it is told to stop.
///
/// # Errors
/// See [`Problem`].
pub fn report(workspace: &Workspace, job: &BuildReport, stop: &dyn Fn() -> bool) -> Result<Report, Problem> {
    let groups = totals(workspace, job, stop)?;
    let mut all = Total::default();
    for total in groups.values() {
        all.add(total).ok_or_else(|| Problem::content(&job.orders, "the total is too large"))?;
    }
    let path = format!("reports/{}/by-{}.html", job.orders, job.group_by);
    workspace.write(&path, html(job, &groups, &all).as_bytes())?;
    Ok(Report { path, orders: all.orders, revenue: money(all.cents) })
}

#[derive(Debug, Default)]
struct Total {
    orders: u64,
    units: u64,
    /// Money is counted, not measured: no floating point.
    cents: u64,
}

impl Total {
    fn add(&mut self, other: &Self) -> Option<()> {
        self.orders = self.orders.checked_add(other.orders)?;
        self.units = self.units.checked_add(other.units)?;
        self.cents = self.cents.checked_add(other.cents)?;
        Some(())
    }
}

fn totals(
    workspace: &Workspace,
    job: &BuildReport,
    stop: &dyn Fn() -> bool,
) -> Result<BTreeMap<String, Total>, Problem> {
    let mut reader = csv::Reader::from_reader(BufReader::new(workspace.open(&job.orders)?));
    let headers = reader.headers().map_err(|error| csv_problem(&job.orders, error))?.clone();
    let [group_by, quantity, unit_price] = [&job.group_by, "quantity", "unit_price"].map(|name| {
        let found = headers.iter().position(|header| header == name);
        found.ok_or_else(|| Problem::content(&job.orders, format!("there is no column {name:?}")))
    });
    let (group_by, quantity, unit_price) = (group_by?, quantity?, unit_price?);

    let mut groups = BTreeMap::<String, Total>::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| csv_problem(&job.orders, error))? {
        if stop() {
            return Err(Problem::Stopped);
        }
        let broken = |what: String| {
            let line = record.position().map_or(0, csv::Position::line);
            Problem::Row { path: job.orders.clone(), line, what }
        };
        // The reader has made sure that every row is as long as the headers.
        let field = |column: usize| record.get(column).unwrap_or_default();
        let units = field(quantity).parse::<u32>();
        let units = units.map_err(|_| broken(format!("quantity {:?} is no number", field(quantity))))?.into();
        let price = cents(field(unit_price));
        let price =
            price.ok_or_else(|| broken(format!("unit_price {:?} is no amount", field(unit_price))))?;
        let order = price.checked_mul(units).map(|cents| Total { orders: 1, units, cents });
        let group = groups.entry(field(group_by).to_owned()).or_default();
        order
            .and_then(|order| group.add(&order))
            .ok_or_else(|| broken("the total is too large".to_owned()))?;
    }
    Ok(groups)
}

/// What is wrong with a CSV file, and in which line.
pub(crate) fn csv_problem(path: &str, error: csv::Error) -> Problem {
    let line = error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Problem::io(path)(error),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let what = format!("{len} fields instead of {expected_len}");
            Problem::Row { path: path.to_owned(), line, what }
        }
        csv::ErrorKind::Utf8 { .. } => {
            Problem::Row { path: path.to_owned(), line, what: "not UTF-8".to_owned() }
        }
        other => Problem::content(path, format!("{other:?}")),
    }
}

/// `12.5` is 1250 cents. No signs, no more than two decimals.
fn cents(amount: &str) -> Option<u64> {
    let (whole, decimals) = amount.split_once('.').unwrap_or((amount, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(format!("{decimals:0<2}").parse().ok()?)
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The report: the groups with the largest revenue first, and the sum of all.
fn html(job: &BuildReport, groups: &BTreeMap<String, Total>, all: &Total) -> String {
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|(_, total)| std::cmp::Reverse(total.cents));
    let mut rows = String::new();
    for (group, total) in sorted {
        row(&mut rows, &escaped(group), total);
    }
    let mut sum = String::new();
    row(&mut sum, "Total", all);
    let (orders, group_by) = (escaped(&job.orders), escaped(&job.group_by));
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{orders} by {group_by}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 44rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ border-bottom: 1px solid #ddd; padding: .4rem .8rem; text-align: right; }}
  th:first-child, td:first-child {{ text-align: left; }}
  tfoot {{ font-weight: bold; }}
</style>
<h1>{orders} by {group_by}</h1>
<table>
<thead><tr><th>{group_by}</th><th>Orders</th><th>Units</th><th>Revenue</th></tr></thead>
<tbody>
{rows}</tbody>
<tfoot>
{sum}</tfoot>
</table>
</html>
"#
    )
}

fn row(rows: &mut String, name: &str, total: &Total) {
    let Total { orders, units, cents } = total;
    let revenue = money(*cents);
    // Writing to a string does not fail.
    let _ = writeln!(rows, "<tr><td>{name}</td><td>{orders}</td><td>{units}</td><td>{revenue}</td></tr>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let good = [("0", 0), ("12", 1200), ("12.5", 1250), ("12.05", 1205), ("0.99", 99)];
        good.iter().for_each(|(text, expected)| assert_eq!(cents(text), Some(*expected), "{text}"));
        let bad = ["", ".", "1.", ".5", "-1", "+1", "1.234", "1,5", "1e3", "NaN", "99999999999999999999"];
        bad.iter().for_each(|text| assert_eq!(cents(text), None, "{text}"));
        assert_eq!(money(120_405), "1204.05");
    }

    #[test]
    fn text_from_a_file_is_no_markup() {
        assert_eq!(escaped(r#"<b a="&">"#), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
