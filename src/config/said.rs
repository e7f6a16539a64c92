//! What was said: every option of `vecmill serve` once, as flag, as `VECMILL_...` and as a key of the TOML file.

use crate::hub::bundle::PublicKey;
use crate::wire::Truncate;
use bytesize::ByteSize;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Every option may be given as a flag, as an environment variable or in the configuration file (same name with `_`); the flag wins, then
/// the environment, then the file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default)]
pub struct Said {
    /// Model to serve: the name of a card, a directory, a GGUF file (FILE.gguf), or owner/name on the hub; may be given several times
    #[arg(long, value_name = "[SLUG=]WHAT", env = "VECMILL_MODEL", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub model: Vec<String>,

    /// TOML file with any of these options, and a table `[models."SLUG"]` per model
    #[arg(long, value_name = "FILE", env = "VECMILL_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "VECMILL_HOST")]
    pub host: Option<String>,

    /// Port to listen on; 0 picks a free one [default: 8000]
    #[arg(long, env = "VECMILL_PORT")]
    pub port: Option<u16>,

    /// TOML file with a table `[[key]]` per API key (see `vecmill keys generate`); re-read when it changes
    #[arg(long, value_name = "FILE", env = "VECMILL_KEYS")]
    pub keys: Option<PathBuf>,

    /// Serve without keys on an address that others can reach
    #[arg(long, env = "VECMILL_NO_AUTH", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub no_auth: Option<bool>,

    /// Certificate in PEM, with those that lead to its root: serve HTTPS; re-read when it changes
    #[arg(long, value_name = "FILE", env = "VECMILL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key in PEM of the certificate of --tls-cert
    #[arg(long, value_name = "FILE", env = "VECMILL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Origin whose web pages may call the server, such as `https://app.example.com`; may be given several times; * = any
    #[arg(long, value_name = "ORIGIN", env = "VECMILL_CORS_ORIGIN", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub cors_origin: Vec<String>,

    /// Host name under which `/v1/...` is the OpenAI layer, `/v1/models` too; may be given several times
    #[arg(long, value_name = "HOST", env = "VECMILL_OPENAI_HOST", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub openai_host: Vec<String>,

    #[command(flatten)]
    #[serde(flatten)]
    pub store: StoreSaid,

    /// Requests per minute of a key, user, tenant and partner: off, or scaigrid (60, 120, 1000, 5000; 60 of an address without a key); the file can say more [default: off]
    #[arg(long, value_name = "PRESET", env = "VECMILL_RATE_LIMITS", value_parser = |word: &str| Ok::<_, String>(RateLimitsSaid::Preset(word.to_owned())))]
    pub rate_limits: Option<RateLimitsSaid>,

    /// The server's address as clients see it, for links in answers [default: the request's own host]
    #[arg(long, value_name = "URL", env = "VECMILL_PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Tokens per batch [default: what the device computes in about 100 ms, measured at start; on a CPU for bulk work three times that, and 256 for each thread at least]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_BATCH_TOKENS")]
    pub max_batch_tokens: Option<usize>,

    /// Texts per batch [default: 512]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_BATCH_TEXTS")]
    pub max_batch_texts: Option<usize>,

    /// Tokens that may wait for the device; over that, requests get 429 [default: four times --max-request-tokens]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_QUEUE_TOKENS")]
    pub max_queue_tokens: Option<usize>,

    /// Texts per request [default: 2048]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_TEXTS")]
    pub max_texts: Option<usize>,

    /// Tokens per request, of all its texts [default: 300000]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_REQUEST_TOKENS")]
    pub max_request_tokens: Option<usize>,

    /// Size of a request's body [default: 32MiB]
    #[arg(long, value_name = "BYTES", env = "VECMILL_MAX_BODY_BYTES")]
    pub max_body_bytes: Option<ByteSize>,

    /// Lines of one batch job [default: 50000]
    #[arg(long, value_name = "N", env = "VECMILL_MAX_JOB_LINES")]
    pub max_job_lines: Option<usize>,

    /// Size of an uploaded file [default: 200MB]
    #[arg(long, value_name = "BYTES", env = "VECMILL_MAX_FILE_BYTES")]
    pub max_file_bytes: Option<ByteSize>,

    /// How long files are kept: from their upload, and results from the job's end [default: 30]
    #[arg(long, value_name = "DAYS", env = "VECMILL_KEEP_FILES_DAYS")]
    pub keep_files_days: Option<u32>,

    /// Address below which the inputs of batch jobs may lie, such as `https://files.example.com/batches/` or `file:///srv/batches/`; may be given
    /// several times [default: none, nothing is fetched]
    #[arg(long, value_name = "URL", env = "VECMILL_JOB_INPUT_URL", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub job_input_url: Vec<String>,

    /// Private addresses that inputs may be fetched from, such as 10.0.0.0/8; may be given several times [default: none, only public ones]
    #[arg(long, value_name = "NETWORK", env = "VECMILL_JOB_INPUT_NETWORK", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub job_input_network: Vec<String>,

    /// Call batch jobs whose window has closed `failed` instead of `expired`
    #[arg(long, env = "VECMILL_EXPIRED_JOBS_FAIL", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub expired_jobs_fail: Option<bool>,

    /// Time from a request's arrival to its answer, in milliseconds [default: 55000]
    #[arg(long, value_name = "MS", env = "VECMILL_DEADLINE_MS")]
    pub deadline_ms: Option<u64>,

    #[command(flatten)]
    #[serde(flatten)]
    pub model_options: ModelSaid,

    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogSaid,

    /// `[models."SLUG"]`.
    #[arg(skip)]
    pub models: BTreeMap<String, PerModel>,

    /// `[aliases]`: other names for models.
    #[arg(skip)]
    pub aliases: BTreeMap<String, AliasSaid>,
}

/// Where models come from and how they run: shared by the commands that load one.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default)]
pub struct ModelSaid {
    /// Where to compute: auto, cpu, `cuda[:N]` or metal, or several GPUs with one replica each: cuda:0,cuda:1 [default: auto]
    #[arg(long, env = "VECMILL_DEVICE")]
    pub device: Option<String>,

    /// Number type of the computation: auto, f32, bf16, f16 or int8 (on a CPU's fused executor; changes vectors a little) [default: auto]
    #[arg(long, env = "VECMILL_DTYPE")]
    pub dtype: Option<String>,

    /// Compute threads on a CPU [default: the physical cores this process may use]
    #[arg(long, value_name = "N", env = "VECMILL_THREADS")]
    pub threads: Option<usize>,

    /// Kernels on a CPU: auto, scalar, avx2, avx2-vnni, avx512, avx512-vnni or avx512-bf16 [default: auto]
    #[arg(long, value_name = "LEVEL", env = "VECMILL_CPU_LEVEL")]
    pub cpu_level: Option<String>,

    /// Pooling of a model that does not say its own: cls, mean, max, mean_sqrt_len_tokens, weightedmean or lasttoken
    #[arg(long, value_name = "MODE", env = "VECMILL_POOLING")]
    pub pooling: Option<String>,

    /// Least cosine to its golden vectors at which a model is served [default: 0.99999 in f32, 0.9999 in bf16 and f16, 0.997 in int8]
    #[arg(long, value_name = "X", env = "VECMILL_MIN_COSINE")]
    pub min_cosine: Option<f64>,

    #[command(flatten)]
    #[serde(flatten)]
    pub source: SourceSaid,
}

/// Where models come from: shared by the commands that fetch one.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default)]
pub struct SourceSaid {
    /// Fetch nothing: open no socket but the listener
    #[arg(long, env = "VECMILL_OFFLINE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub offline: Option<bool>,

    /// Directory for downloaded models [default: the user's cache directory, /vecmill]
    #[arg(long, value_name = "DIR", env = "VECMILL_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,

    /// Take only bundles that this key has signed, and models with a card (see `vecmill bundle keygen`)
    #[arg(long, value_name = "PUBKEY", env = "VECMILL_TRUST")]
    pub trust: Option<PublicKey>,
}

/// Where what must survive a restart is kept: shared by the commands that read or change it.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default)]
pub struct StoreSaid {
    /// Directory for what must survive a restart: keys, usage, files, batch jobs [default: the user's data directory, /vecmill]
    #[arg(long, value_name = "DIR", env = "VECMILL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where it is kept: `postgres://...` (several servers may share it), or memory (nothing survives) [default: a file in --data-dir]
    #[arg(long, value_name = "URL", env = "VECMILL_STORE", hide_env_values = true)]
    pub store: Option<String>,
}

/// `rate_limits = "scaigrid"`, or a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum RateLimitsSaid {
    Preset(String),
    Table(RateLimitsTable),
}

/// `[rate_limits]`: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitsTable {
    pub preset: Option<String>,
    pub key: QuotaSaid,
    pub user: QuotaSaid,
    pub tenant: QuotaSaid,
    pub partner: QuotaSaid,
    pub address: QuotaSaid,
}

/// The limits of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaSaid {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
}

/// How the log looks.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default)]
pub struct LogSaid {
    /// Log lines for people or for machines: pretty or json [default: pretty on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "VECMILL_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// What is logged: error, warn, info, debug, or a filter such as vecmill=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "VECMILL_LOG_LEVEL")]
    pub log_level: Option<String>,
}

/// One table `[models."SLUG"]` of the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerModel {
    /// `none` (refuse texts that are too long), `end` (keep the beginning) or `start` (keep the end).
    pub truncate: Option<Truncate>,
    /// The model's limit in tokens, up to its position table.
    pub max_tokens: Option<usize>,
    /// `true`, `false`, or the sizes the model is trained for.
    pub matryoshka: Option<MatryoshkaSaid>,
    /// Only the listed sizes.
    pub matryoshka_strict: Option<bool>,
    /// A layer norm over the whole vector before it is cut.
    pub mrl_layer_norm: Option<bool>,
    /// `unit` (default) or `model`.
    pub normalize: Option<Normalize>,
    /// The prompt of requests that name none.
    pub default_prompt: Option<String>,
    /// `refuse` (default) or `embed`.
    pub empty_input: Option<EmptyInput>,
    /// Number type of this model.
    pub dtype: Option<String>,
}

/// `"NAME" = "SLUG"`, `"SLUG:PROMPT"`, or a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum AliasSaid {
    Model(String),
    Table(AliasTable),
}

/// `"NAME" = { model = "SLUG", prompt = "query", dimensions = 512 }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasTable {
    /// The slug.
    pub model: String,
    /// The prompt of requests that name none.
    pub prompt: Option<String>,
    /// The vector size of requests that name none.
    pub dimensions: Option<usize>,
}

/// `matryoshka = true | false | [sizes]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum MatryoshkaSaid {
    Any(bool),
    Sizes(Vec<usize>),
}

/// Unit vectors, or what modules.json makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    #[default]
    Unit,
    Model,
}

/// What becomes of an empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmptyInput {
    #[default]
    Refuse,
    Embed,
}

impl Said {
    /// These options, and from `file` what they do not say.
    pub fn or(self, file: Said) -> Said {
        Said {
            model: if self.model.is_empty() { file.model } else { self.model },
            config: self.config,
            host: self.host.or(file.host),
            port: self.port.or(file.port),
            keys: self.keys.or(file.keys),
            no_auth: self.no_auth.or(file.no_auth),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            cors_origin: if self.cors_origin.is_empty() { file.cors_origin } else { self.cors_origin },
            openai_host: if self.openai_host.is_empty() { file.openai_host } else { self.openai_host },
            store: StoreSaid { data_dir: self.store.data_dir.or(file.store.data_dir), store: self.store.store.or(file.store.store) },
            public_url: self.public_url.or(file.public_url),
            rate_limits: self.rate_limits.or(file.rate_limits),
            max_batch_tokens: self.max_batch_tokens.or(file.max_batch_tokens),
            max_batch_texts: self.max_batch_texts.or(file.max_batch_texts),
            max_queue_tokens: self.max_queue_tokens.or(file.max_queue_tokens),
            max_texts: self.max_texts.or(file.max_texts),
            max_request_tokens: self.max_request_tokens.or(file.max_request_tokens),
            max_body_bytes: self.max_body_bytes.or(file.max_body_bytes),
            max_job_lines: self.max_job_lines.or(file.max_job_lines),
            max_file_bytes: self.max_file_bytes.or(file.max_file_bytes),
            job_input_url: if self.job_input_url.is_empty() { file.job_input_url } else { self.job_input_url },
            job_input_network: if self.job_input_network.is_empty() { file.job_input_network } else { self.job_input_network },
            expired_jobs_fail: self.expired_jobs_fail.or(file.expired_jobs_fail),
            keep_files_days: self.keep_files_days.or(file.keep_files_days),
            deadline_ms: self.deadline_ms.or(file.deadline_ms),
            model_options: ModelSaid {
                device: self.model_options.device.or(file.model_options.device),
                dtype: self.model_options.dtype.or(file.model_options.dtype),
                threads: self.model_options.threads.or(file.model_options.threads),
                cpu_level: self.model_options.cpu_level.or(file.model_options.cpu_level),
                pooling: self.model_options.pooling.or(file.model_options.pooling),
                min_cosine: self.model_options.min_cosine.or(file.model_options.min_cosine),
                source: SourceSaid {
                    offline: self.model_options.source.offline.or(file.model_options.source.offline),
                    cache_dir: self.model_options.source.cache_dir.or(file.model_options.source.cache_dir),
                    trust: self.model_options.source.trust.or(file.model_options.source.trust),
                },
            },
            log: LogSaid { log_format: self.log.log_format.or(file.log.log_format), log_level: self.log.log_level.or(file.log.log_level) },
            models: file.models,
            aliases: file.aliases,
        }
    }
}

/// `model = "x"` or `model = ["x", "y"]`.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
