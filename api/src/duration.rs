use std::time::Duration;

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// The units of ISO 8601 before and after the `T`, in the order in which they may come. Its years and months have
/// no fixed length, so they are none of them.
const DATE: &[(char, u64)] = &[('W', WEEK), ('D', DAY)];
const TIME: &[(char, u64)] = &[('H', HOUR), ('M', MINUTE), ('S', SECOND)];

/// Reads a duration such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let read = match text.strip_prefix('P') {
        Some(iso) => iso_8601(iso),
        None => humantime::parse_duration(text).ok(),
    };
    read.ok_or_else(|| "write a duration such as \"30s\", \"1h 30m\" or \"PT30S\"".into())
}

/// What follows the `P`.
fn iso_8601(text: &str) -> Option<Duration> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time).filter(|time| !time.is_empty())?),
        None => (Some(text).filter(|date| !date.is_empty())?, ""),
    };
    units(date, DATE)?.checked_add(units(time, TIME)?)
}

/// The sum of numbers with their units; only seconds may have a fraction.
fn units(mut text: &str, units: &[(char, u64)]) -> Option<Duration> {
    let mut units = units.iter();
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')?;
        let (number, rest) = text.split_at(end);
        let mut rest = rest.chars();
        let unit = rest.next()?;
        let &(_, seconds) = units.find(|(name, _)| *name == unit)?;
        let (whole, fraction) = match number.split_once(['.', ',']) {
            Some((whole, fraction)) if unit == 'S' => (whole, nanos(fraction)?),
            Some(_) => return None,
            None => (number, 0),
        };
        let seconds = whole.parse::<u64>().ok()?.checked_mul(seconds)?;
        sum = sum.checked_add(Duration::new(seconds, fraction))?;
        text = rest.as_str();
    }
    Some(sum)
}

/// The digits after the point, of which a billionth of a second is the last that counts.
fn nanos(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").get(..9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_read() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h 30m", 5_400_000),
            ("0s", 0),
            ("PT30S", 30_000),
            ("PT1H30M", 5_400_000),
            ("PT0.25S", 250),
            ("PT1,5S", 1_500),
            ("P1D", 86_400_000),
            ("P1DT2H", 93_600_000),
            ("P2W", 1_209_600_000),
            ("PT0S", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "30",
            "-5s",
            "soon",
            "99999999999999999999s",
            "P",
            "PT",
            "P1DT",
            "P1",
            "PT5",
            "PTS",
            "P1Y",
            "P1M",
            "PT-5S",
            "-PT5S",
            "PT1S1S",
            "PT1S1H",
            "PT1.5H",
            "PT1.S",
            "PT1.2.3S",
            "P1S",
            "pt5s",
            "PT99999999999999999999S",
            "PT18446744073709551615M",
            "P1é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
