//! The time that the addresses of a VM stay reserved after it is deleted (`ovn-kubevirt.io/retain`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The retention time. The longer one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retention {
    /// For a duration; zero means no retention.
    For(Duration),
    /// Until they are released by hand.
    Forever,
}

impl Retention {
    /// No retention.
    pub const NONE: Self = Self::For(Duration::ZERO);
}

/// In the form that is read.
impl fmt::Display for Retention {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => formatter.write_str("forever"),
            Self::For(time) if time.subsec_millis() > 0 => write!(formatter, "{}ms", time.as_millis()),
            Self::For(time) => match time.as_secs() {
                seconds if seconds % 3_600 == 0 && seconds > 0 => write!(formatter, "{}h", seconds / 3_600),
                seconds => write!(formatter, "{seconds}s"),
            },
        }
    }
}

/// A text without a valid duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no duration")]
pub struct BadRetention;

impl FromStr for Retention {
    type Err = BadRetention;

    /// Reads `forever`, or a duration in the form of Kubernetes and Go (`0`, `90m`, `1h30m`, `1.5h`), or with days
    /// (`7d`).
    fn from_str(text: &str) -> Result<Self, BadRetention> {
        match text {
            "forever" => Ok(Self::Forever),
            "0" => Ok(Self::For(Duration::ZERO)),
            _ => duration(text).map(Self::For).ok_or(BadRetention),
        }
    }
}

/// Numbers, each with its unit; `None` if the sum overflows a `Duration`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|character: char| !character.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        total = total.checked_add(part(number, unit)?)?;
        rest = behind;
    }
    Some(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let milliseconds: u64 = match unit {
        "d" => 86_400_000,
        "h" => 3_600_000,
        "m" => 60_000,
        "s" => 1_000,
        "ms" => 1,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(milliseconds)?;
    // Nine digits are a millionth of a day and less.
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let parts = u128::from(fraction.parse::<u64>().ok()?) * u128::from(milliseconds) / u128::from(scale);
    Some(Duration::from_millis(whole.checked_add(u64::try_from(parts).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them_and_days_too() {
        let seconds = |text: &str| match text.parse() {
            Ok(Retention::For(duration)) => Some(duration.as_secs()),
            other => panic!("{text}: {other:?}"),
        };
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("72h", 259_200),
            ("90m", 5_400),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            ("7d", 604_800),
            ("1d12h0m5s", 129_605),
            ("1500ms", 1),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Retention::Forever));
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in ["", " ", "x", "72", "-1h", "h", "1w", "1h 30m", "1..5h", ".", "Forever", "99999999999999999999h"] {
            assert_eq!(text.parse::<Retention>(), Err(BadRetention), "{text}");
        }
    }
}
