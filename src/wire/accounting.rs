//! Usage over HTTP: the listing's parameters, its items, and the summary.

use super::{Detail, Fault};
use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

/// Which usage is asked for, besides the page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageFilter {
    pub model: Option<String>,
    pub user_id: Option<String>,
    /// Both days included.
    pub start_date: Option<Date>,
    pub end_date: Option<Date>,
}

impl UsageFilter {
    /// Reads the parameters; of one given twice the last counts, others are not looked at.
    ///
    /// # Errors
    /// `Validation` with every parameter at fault.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Fault> {
        let (mut filter, mut faults) = (Self::default(), Vec::new());
        let mut day = |name: &'static str, value: &str| {
            let day = value.parse().ok();
            if day.is_none() {
                faults.push(Detail::new(name, "must be a day such as 2026-01-31"));
            }
            day
        };
        for (name, value) in parameters {
            match name {
                "model" => filter.model = Some(value.to_owned()),
                "user_id" => filter.user_id = Some(value.to_owned()),
                "start_date" => filter.start_date = day("start_date", value),
                "end_date" => filter.end_date = day("end_date", value),
                _ => {}
            }
        }
        if faults.is_empty() { Ok(filter) } else { Err(Fault::Validation(faults)) }
    }
}

/// What one key used of one model on one day, in the words of the hosted service's records.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UsageItem {
    pub id: String,
    pub date: String,
    pub model: String,
    pub backend_id: String,
    pub api_key_id: String,
    pub api_key_name: String,
    pub user_id: String,
    pub tenant_id: String,
    pub requests: i64,
    pub texts: i64,
    pub tokens_in: i64,
    /// Vectors are no tokens.
    pub tokens_out: i64,
    /// Nothing is charged here.
    pub cost: &'static str,
    /// Of a request, on average.
    pub latency_ms: i64,
    /// The day's beginning.
    pub created_at: String,
}

/// Sums over the days asked for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UsageSummary {
    #[schema(required = true)]
    pub start_date: Option<Date>,
    #[schema(required = true)]
    pub end_date: Option<Date>,
    #[serde(flatten)]
    pub total: UsageSum,
    pub by_model: Vec<ModelSum>,
}

/// One sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct UsageSum {
    pub requests: i64,
    pub texts: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub cost: &'static str,
}

/// The sum of one model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelSum {
    pub model: String,
    #[serde(flatten)]
    pub sum: UsageSum,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_days() {
        let parse = |query: &[(&'static str, &'static str)]| UsageFilter::parse(query.iter().copied());
        let filter = parse(&[("start_date", "2026-01-31"), ("model", "m"), ("x", "y")]).unwrap();
        assert_eq!((filter.start_date.unwrap().to_string().as_str(), filter.model.as_deref(), filter.end_date), ("2026-01-31", Some("m"), None));
        let faults = parse(&[("start_date", "yesterday"), ("end_date", "2026-02-30")]).unwrap_err();
        assert_eq!(faults.details().iter().map(|detail| detail.field.as_ref()).collect::<Vec<_>>(), ["start_date", "end_date"]);
    }
}
