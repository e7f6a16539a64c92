//! What the operator sees from outside: the log's set-up, and every metric declared once, in one table.

use metrics::{Counter, Gauge, Histogram, Label};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives per module as tracing's `EnvFilter` takes them.
    pub level: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: "info".to_owned() }
    }
}

/// One line per event, for programs or for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    #[default]
    Pretty,
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log level {level:?} is not understood: {source}")]
    Level { level: String, source: tracing_subscriber::filter::ParseError },
    #[error("the log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the log of the whole process to stderr, panics included.
///
/// # Errors
/// If the level is not understood, or on the second call.
pub fn init(options: &Options) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&options.level).map_err(|source| LogError::Level { level: options.level.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().try_init()?,
        LogFormat::Pretty => lines.with_target(false).finish().try_init()?,
    }
    std::panic::set_hook(Box::new(|panic| {
        // A literal was written by us. A formatted message may quote the text that a client sent, so only its place is told.
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld: it may quote a request)");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(event = "panic", place, thread = std::thread::current().name(), "{message}");
    }));
    Ok(())
}

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric. `model`, `backend` and `backend_id` hold slugs from the configuration, never a client's words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const TOKENS: &[f64] = &[16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0];
const TEXTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];

/// Declares each metric as a constant, and all of them as `METRICS`.
macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Metric = Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// Every metric there is, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($id),*];
    };
}

metrics! {
    REQUESTS = "scaigrid_requests_total", Kind::Counter, ["model", "status", "protocol"],
        "Requests answered, by model (`none` if it was not found), HTTP status and protocol (`native`, `openai`).";
    REQUEST_SECONDS = "scaigrid_request_duration_seconds", Kind::Histogram(SECONDS), ["model", "backend"],
        "Time from a request's head to its answer.";
    TOKENS_TOTAL = "scaigrid_tokens_total", Kind::Counter, ["model", "direction", "tenant_id"],
        "Tokens embedded; direction is always `input`.";
    BACKEND_HEALTH = "scaigrid_backend_health", Kind::Gauge, ["backend_id"],
        "1 while the model answers, 0 while it loads or has failed.";
    BACKEND_INFLIGHT = "scaigrid_backend_inflight_requests", Kind::Gauge, ["backend_id"],
        "Requests of the model that are being tokenised, queued or computed.";
    CIRCUIT_BREAKER = "scaigrid_circuit_breaker_state", Kind::Gauge, ["backend_id"],
        "0 = the model takes requests, 1 = it refuses them because its device has failed.";
    IN_FLIGHT = "vecmill_requests_in_flight", Kind::Gauge, [],
        "Requests whose head has arrived and whose answer has not been made yet.";
    CANCELLED = "vecmill_requests_cancelled_total", Kind::Counter, [],
        "Requests whose client left before the answer.";
    REJECTIONS = "vecmill_rejections_total", Kind::Counter, ["reason"],
        "Requests answered with an error, by its code in lower case.";
    CONNECTIONS = "vecmill_connections", Kind::Gauge, [],
        "Open connections.";
    BODY_BYTES = "vecmill_request_body_bytes", Kind::Gauge, [],
        "Bytes of request bodies held in memory.";
    QUEUE_TOKENS = "vecmill_queue_tokens", Kind::Gauge, [],
        "Tokens waiting for the device.";
    BATCH_TOKENS = "vecmill_batch_tokens", Kind::Histogram(TOKENS), ["model"],
        "Tokens in a batch.";
    BATCH_TEXTS = "vecmill_batch_texts", Kind::Histogram(TEXTS), ["model"],
        "Texts in a batch.";
    KEY_REQUESTS = "vecmill_key_requests_total", Kind::Counter, ["key", "model"],
        "Embedding requests answered with vectors, by the key's id.";
    KEY_TOKENS = "vecmill_key_tokens_total", Kind::Counter, ["key", "model"],
        "Tokens embedded, by the key's id.";
    TOKENIZE_SECONDS = "vecmill_tokenize_seconds", Kind::Histogram(SECONDS), ["model"],
        "Time a request spent being tokenised.";
    QUEUE_SECONDS = "vecmill_queue_seconds", Kind::Histogram(SECONDS), ["model"],
        "Time a request spent waiting for the device.";
    INFERENCE_SECONDS = "vecmill_inference_seconds", Kind::Histogram(SECONDS), ["model"],
        "Time a request spent being computed.";
    TRUNCATED = "vecmill_truncated_texts_total", Kind::Counter, ["model"],
        "Texts that were cut to the model's length, as asked.";
    REPAIRS = "vecmill_nonfinite_repairs_total", Kind::Counter, ["model"],
        "Vectors with NaN or infinity that were computed again in f32.";
    ZERO_VECTORS = "vecmill_zero_vectors_total", Kind::Counter, ["model"],
        "Vectors that are all zero and hence have no direction.";
    GOLDEN_COSINE = "vecmill_golden_min_cosine", Kind::Gauge, ["model"],
        "Least cosine to the reference over the golden texts computed at start; absent for a model without goldens.";
    GOLDEN_ERROR = "vecmill_golden_max_abs_error", Kind::Gauge, ["model"],
        "Largest error of a component over the same texts.";
    DEVICE_UP = "vecmill_device_up", Kind::Gauge, ["device"],
        "1 while the device's thread runs.";
}

impl Metric {
    /// Counts `n` more. `labels` in the order of the declaration.
    pub fn add<const N: usize>(&self, labels: [&str; N], n: u64) {
        self.counter(&labels).increment(n);
    }

    /// Sets a gauge.
    pub fn set<const N: usize>(&self, labels: [&str; N], value: f64) {
        self.gauge(&labels).set(value);
    }

    /// Moves a gauge up, or down for a negative `by`.
    pub fn move_by<const N: usize>(&self, labels: [&str; N], by: f64) {
        self.gauge(&labels).increment(by);
    }

    /// Puts one value into a histogram.
    pub fn observe<const N: usize>(&self, labels: [&str; N], value: f64) {
        self.histogram(&labels).record(value);
    }

    fn counter(&self, labels: &[&str]) -> Counter {
        metrics::counter!(self.name, self.labelled(labels))
    }

    fn gauge(&self, labels: &[&str]) -> Gauge {
        metrics::gauge!(self.name, self.labelled(labels))
    }

    fn histogram(&self, labels: &[&str]) -> Histogram {
        metrics::histogram!(self.name, self.labelled(labels))
    }

    fn labelled(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
    }

    fn announce(&self) {
        // A metric without labels is there from the start, so that a dashboard sees 0 and not a hole.
        match self.kind {
            Kind::Counter => {
                metrics::describe_counter!(self.name, self.help);
                if self.labels.is_empty() {
                    self.counter(&[]).increment(0);
                }
            }
            Kind::Gauge => {
                metrics::describe_gauge!(self.name, self.help);
                if self.labels.is_empty() {
                    self.gauge(&[]).increment(0.0);
                }
            }
            Kind::Histogram(_) => metrics::describe_histogram!(self.name, self.help),
        }
    }
}

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts collecting, once per process; later calls change nothing.
pub fn install_metrics() {
    RECORDER.get_or_init(|| {
        let builder = METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
            Kind::Histogram(buckets) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets),
            _ => Ok(builder),
        });
        let handle = builder.and_then(|builder| {
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder)?;
            Ok(handle)
        });
        match handle {
            Ok(handle) => {
                METRICS.iter().for_each(Metric::announce);
                Some(handle)
            }
            Err(error) => {
                tracing::error!(%error, "metrics are off");
                None
            }
        }
    });
}

/// All metrics in Prometheus' text format; empty before `install_metrics`.
pub fn render() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves recorded values into their buckets from time to time, or memory would grow until somebody looks. Never returns.
pub async fn upkeep() -> std::convert::Infallible {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        if let Some(recorder) = recorder() {
            recorder.run_upkeep();
        }
    }
}

fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER.get().and_then(Option::as_ref)
}

/// The table of all metrics for the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in METRICS {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_one_family() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..index].iter().all(|other| other.name != metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("scaigrid_") || metric.name.starts_with("vecmill_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered_with_its_labels_and_buckets() {
        install_metrics();
        install_metrics();
        REQUESTS.add(["telemetry/test", "200", "native"], 3);
        BATCH_TEXTS.observe(["telemetry/test"], 5.0);
        let text = render();
        assert!(text.contains("scaigrid_requests_total{model=\"telemetry/test\",status=\"200\",protocol=\"native\"} 3"), "{text}");
        assert!(text.contains("vecmill_batch_texts_bucket{model=\"telemetry/test\",le=\"4\"} 0"), "{text}");
        assert!(text.contains("vecmill_batch_texts_bucket{model=\"telemetry/test\",le=\"8\"} 1"), "{text}");
        assert!(text.contains("# TYPE vecmill_requests_cancelled_total counter"), "{text}");
    }

    #[test]
    fn a_level_that_is_not_understood_is_named() {
        let error = init(&Options { format: LogFormat::Json, level: "vecmill=loud".to_owned() }).unwrap_err();
        assert!(error.to_string().contains("vecmill=loud"), "{error}");
    }
}
