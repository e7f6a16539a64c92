//! From what was said to what is obeyed: defaults filled in, impossible pairs refused with the sentence that says what to change.

use super::said::{EmptyInput, MatryoshkaSaid, ModelSaid, Normalize, PerModel, Said, SourceSaid, StoreSaid};
use super::{ConfigError, Env, aliases, file, impossible, limits};
use crate::service::alias::Alias;
use crate::service::registry::{Matryoshka, Settings};
use crate::store::Place;
use crate::{api, engine, hub, service, telemetry};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Everything `serve` obeys.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub models: Vec<ServeModel>,
    /// Other names for them, each checked to name one of them and to hide none.
    pub aliases: Vec<Alias>,
    /// The listener's address, name resolved.
    pub listen: SocketAddr,
    pub keys: Option<PathBuf>,
    /// `None` = plain HTTP.
    pub tls: Option<api::TlsFiles>,
    pub no_auth: bool,
    pub store: Place,
    pub books: service::books::Options,
    pub hub: hub::Options,
    /// Where models compute; empty = auto.
    pub devices: Vec<engine::load::Device>,
    pub threads: usize,
    pub engine: engine::Options,
    pub service: service::Options,
    pub api: api::Options,
    pub log: telemetry::Options,
}

/// One `--model`.
#[derive(Debug, Clone)]
pub struct ServeModel {
    /// The name it is served under.
    pub slug: String,
    pub what: hub::What,
    pub settings: Settings,
    pub load: engine::load::Options,
}

/// How models are obtained and run, for commands that load one.
#[derive(Debug, Clone)]
pub struct Models {
    pub hub: hub::Options,
    pub load: engine::load::Options,
    /// Empty = auto.
    pub devices: Vec<engine::load::Device>,
    pub threads: usize,
}

/// The configuration of `vecmill serve`.
pub fn serve(said: Said, env: &Env) -> Result<Resolved, ConfigError> {
    let said = match said.config.clone() {
        Some(path) => said.or(file::read(&path)?),
        None => said,
    };
    let Models { hub, load, devices, threads } = resolve_models(&said.model_options, env)?;
    let (listen, no_auth) = listen(&said)?;
    let max_texts = said.max_texts.unwrap_or(2048);
    let max_request_tokens = said.max_request_tokens.unwrap_or(300_000);
    let max_body_bytes = said.max_body_bytes.map_or(32 << 20, |bytes| bytes.as_u64() as usize);
    let deadline = Duration::from_millis(said.deadline_ms.unwrap_or(55_000));
    let engine = engine::Options {
        max_batch_tokens: said.max_batch_tokens,
        max_batch_texts: said.max_batch_texts,
        max_queue_tokens: said.max_queue_tokens.unwrap_or(4 * max_request_tokens),
        profile: Some(hub.cache_dir.join("budgets.json")),
    };
    let service = service::Options {
        max_texts,
        max_request_tokens,
        deadline,
        max_ingest_bytes: 2 * max_body_bytes,
        // Compute has the cores; tokenising needs a fraction of them.
        tokenizer_threads: (threads / 2).clamp(1, 16),
    };
    let positive = [
        ("max-batch-tokens", engine.max_batch_tokens.unwrap_or(1)),
        ("max-batch-texts", engine.max_batch_texts.unwrap_or(1)),
        ("max-texts", service.max_texts),
        ("max-request-tokens", max_request_tokens),
        ("max-body-bytes", max_body_bytes),
        ("deadline-ms", deadline.as_millis() as usize),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return impossible(format!("--{name} must be at least 1"));
    }
    if engine.max_queue_tokens < max_request_tokens {
        return impossible(format!(
            "--max-queue-tokens {} is below --max-request-tokens {max_request_tokens}: a request of the allowed size could never be admitted; \
             raise the first or lower the second",
            engine.max_queue_tokens
        ));
    }
    let public_url = said.public_url.clone();
    if let Some(url) = &public_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return impossible(format!("--public-url {url:?} must begin with http:// or https://"));
    }
    let models = models(&said, &load)?;
    let limits =
        api::Options { max_body_bytes, max_held_bytes: 4 * max_body_bytes, max_texts, max_token_ids: max_request_tokens, ..api::Options::default() };
    let tls = tls(said.tls_cert.clone(), said.tls_key.clone())?;
    let (openai_hosts, cors_origins) = (openai_hosts(&said.openai_host)?, cors_origins(&said.cors_origin)?);
    let api = api::Options { deadline, public_url, https: tls.is_some(), openai_hosts, cors_origins, inputs: inputs(&said, hub.offline)?, ..limits };
    Ok(Resolved {
        aliases: aliases::resolve(&said.aliases, &models)?,
        models,
        listen,
        keys: said.keys.clone(),
        tls,
        no_auth,
        store: resolve_store(&said.store, env)?,
        books: service::books::Options {
            stays_open: no_auth,
            limits: limits::resolve(said.rate_limits.as_ref())?,
            jobs: jobs(&said, max_body_bytes)?,
        },
        hub,
        devices,
        threads,
        engine,
        service,
        api,
        log: resolve_log(&said.log)?,
    })
}

impl Resolved {
    /// Whether everyone may use the server, given whether its store has keys: asked once the store is open.
    pub fn open_to_all(&self, store_has_keys: bool) -> Result<bool, ConfigError> {
        if self.no_auth {
            return Ok(true);
        }
        let open = self.keys.is_none() && !store_has_keys;
        if open && !self.listen.ip().is_loopback() {
            return impossible(format!(
                "--host {} can be reached by others and no keys are configured: give --keys FILE (`vecmill keys generate` makes one), make one in \
                 the store (`vecmill keys create`), or --no-auth to serve everyone",
                self.listen.ip()
            ));
        }
        Ok(open)
    }

    /// What the server holds at most besides weights: bodies, texts and tokens that wait, and their answers.
    pub fn budget_bytes(&self) -> u64 {
        // A waiting token costs its id, its place in a row and its share of a text's bookkeeping.
        const BYTES_PER_QUEUED_TOKEN: usize = 64;
        let bytes = self.api.max_held_bytes + self.service.max_ingest_bytes + self.engine.max_queue_tokens * BYTES_PER_QUEUED_TOKEN;
        bytes as u64
    }

    /// The whole configuration on one line for the log; secrets are left out.
    pub fn summary(&self) -> String {
        let hub = hub::Options { hf_token: self.hub.hf_token.as_ref().map(|_| "***".to_owned()), ..self.hub.clone() };
        format!("{:?}", Self { hub, ..self.clone() })
    }
}

/// Both files or neither.
fn tls(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<api::TlsFiles>, ConfigError> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(api::TlsFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => impossible("--tls-cert needs --tls-key FILE: the private key that belongs to the certificate"),
        (None, Some(_)) => impossible("--tls-key needs --tls-cert FILE: the certificate that belongs to the key"),
    }
}

fn cors_origins(said: &[String]) -> Result<Vec<String>, ConfigError> {
    match said.iter().find(|origin| !api::is_origin(origin)) {
        Some(origin) => {
            impossible(format!("--cors-origin {origin:?} must be * or an origin such as https://app.example.com, in lower case and without a path"))
        }
        None => Ok(said.to_vec()),
    }
}

fn openai_hosts(said: &[String]) -> Result<Vec<String>, ConfigError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match said.iter().find(|host| host.is_empty() || !host.bytes().all(fine)) {
        Some(host) => impossible(format!("--openai-host {host:?} must be a host name such as openai.example.com, without scheme and port")),
        None => Ok(said.to_vec()),
    }
}

/// Where the inputs of jobs may lie.
fn inputs(said: &Said, offline: bool) -> Result<api::input::Options, ConfigError> {
    let place = |url: &String| url.parse::<api::input::Place>().or_else(|fault| impossible(format!("--job-input-url {fault}")));
    let network = |text: &String| text.parse::<api::input::Network>().or_else(|fault| impossible(format!("--job-input-network {fault}")));
    let places = said.job_input_url.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    if offline && let Some(at) = places.iter().position(api::input::Place::is_remote) {
        return impossible(format!(
            "--offline and --job-input-url {:?} contradict each other: only file:///... is read offline",
            said.job_input_url[at]
        ));
    }
    Ok(api::input::Options { places, networks: said.job_input_network.iter().map(network).collect::<Result<_, _>>()? })
}

/// What batch jobs may ask.
fn jobs(said: &Said, max_line_bytes: usize) -> Result<service::jobs::Options, ConfigError> {
    let default = service::jobs::Options::default();
    let options = service::jobs::Options {
        max_lines: said.max_job_lines.unwrap_or(default.max_lines),
        max_file_bytes: said.max_file_bytes.map_or(default.max_file_bytes, |bytes| bytes.as_u64()),
        max_line_bytes,
        expired_is_failed: said.expired_jobs_fail.unwrap_or(false),
        keep: said.keep_files_days.map_or(default.keep, |days| Duration::from_secs(u64::from(days) * 24 * 3600)),
        ..default
    };
    match [("max-job-lines", options.max_lines as u64), ("max-file-bytes", options.max_file_bytes), ("keep-files-days", options.keep.as_secs())] {
        limits if limits.iter().all(|(_, limit)| *limit > 0) => Ok(options),
        limits => {
            impossible(limits.iter().filter(|(_, limit)| *limit == 0).map(|(name, _)| format!("--{name} must be at least 1")).collect::<String>())
        }
    }
}

/// Where to listen, and whether keys are needed there.
fn listen(said: &Said) -> Result<(SocketAddr, bool), ConfigError> {
    let host = said.host.as_deref().unwrap_or("127.0.0.1");
    let ip: IpAddr = match host.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => host.parse().or_else(|_| impossible(format!("--host {host:?} is not an IP address (0.0.0.0 and :: mean every interface)")))?,
    };
    let no_auth = said.no_auth.unwrap_or(false);
    match (&said.keys, no_auth) {
        (Some(_), true) => impossible("--keys and --no-auth contradict each other: leave one of them out"),
        _ => Ok((SocketAddr::new(ip, said.port.unwrap_or(8000)), no_auth)),
    }
}

/// Each `--model` with its table of the file.
fn models(said: &Said, load: &engine::load::Options) -> Result<Vec<ServeModel>, ConfigError> {
    if said.model.is_empty() {
        return impossible("nothing to serve: give --model WHAT (`vecmill models` lists the names that need no download address)");
    }
    let mut models = Vec::new();
    for word in &said.model {
        // A path may hold `=` too; what stands before the first one is a slug by definition.
        let (slug, what) = word.split_once('=').map_or((None, word.as_str()), |(slug, what)| (Some(slug.to_owned()), what));
        if what.is_empty() || slug.as_deref() == Some("") {
            return impossible(format!("--model {word:?} must be WHAT or SLUG=WHAT"));
        }
        let what = hub::parse(what).or_else(|error| impossible(format!("--model {word:?}: {error}")))?;
        let slug = slug.unwrap_or_else(|| what.slug());
        let mut model = ServeModel { slug, what, settings: Settings::default(), load: load.clone() };
        if let Some(table) = said.models.get(&model.slug) {
            model.apply(table)?;
        }
        models.push(model);
    }
    match said.models.keys().find(|slug| !models.iter().any(|model| model.slug == **slug)) {
        Some(slug) => impossible(format!("[models.{slug:?}] belongs to no --model; the slugs are {}", slugs(&models))),
        None => Ok(models),
    }
}

fn slugs(models: &[ServeModel]) -> String {
    models.iter().map(|model| model.slug.as_str()).collect::<Vec<_>>().join(", ")
}

impl ServeModel {
    /// Fills in the table of the file that belongs to the slug.
    fn apply(&mut self, table: &PerModel) -> Result<(), ConfigError> {
        let matryoshka = table.matryoshka.clone().map(|said| match said {
            MatryoshkaSaid::Any(true) => Matryoshka::Any,
            MatryoshkaSaid::Any(false) => Matryoshka::Denied,
            MatryoshkaSaid::Sizes(sizes) => Matryoshka::Sizes(sizes),
        });
        self.settings = Settings {
            truncate: table.truncate.unwrap_or_default(),
            max_tokens: table.max_tokens,
            matryoshka,
            matryoshka_strict: table.matryoshka_strict.unwrap_or(false),
            mrl_layer_norm: table.mrl_layer_norm.unwrap_or(false),
            as_the_model: table.normalize.unwrap_or_default() == Normalize::Model,
            default_prompt: table.default_prompt.clone(),
            embed_empty: table.empty_input.unwrap_or_default() == EmptyInput::Embed,
        };
        self.load.max_tokens = table.max_tokens;
        if let Some(dtype) = &table.dtype {
            self.load.dtype = named("dtype", Some(dtype), engine::load::parse_dtype)?;
        }
        Ok(())
    }
}

/// The options of commands that load a model.
pub fn resolve_models(said: &ModelSaid, env: &Env) -> Result<Models, ConfigError> {
    let threads = said.threads.unwrap_or_else(engine::usable_threads);
    if threads == 0 {
        return impossible("--threads must be at least 1");
    }
    let load = engine::load::Options {
        dtype: named("--dtype", said.dtype.as_deref(), engine::load::parse_dtype)?,
        cpu: named("--cpu-level", said.cpu_level.as_deref(), engine::load::parse_cpu_level)?,
        pooling: said.pooling.clone(),
        min_cosine: said.min_cosine,
        ..engine::load::Options::default()
    };
    if let Some(least) = load.min_cosine.filter(|least| !(0.0..=1.0).contains(least)) {
        return impossible(format!("--min-cosine {least} must be between 0 and 1"));
    }
    let devices = named("--device", said.device.as_deref(), engine::load::parse_devices)?;
    Ok(Models { hub: resolve_source(&said.source, env), load, devices, threads })
}

/// The options of commands that fetch models.
pub fn resolve_source(said: &SourceSaid, env: &Env) -> hub::Options {
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let offline = said.offline.unwrap_or(false) || env.get("HF_HUB_OFFLINE").is_some_and(|value| matches!(value, "1" | "true" | "TRUE"));
    hub::Options {
        offline,
        cache_dir: said.cache_dir.clone().unwrap_or_else(|| user_dir(env, "XDG_CACHE_HOME", ".cache").join("vecmill")),
        hf_home: env.get("HF_HOME").map_or_else(|| user_dir(env, "XDG_CACHE_HOME", ".cache").join("huggingface"), PathBuf::from),
        hf_endpoint: env.get("HF_ENDPOINT").unwrap_or("https://huggingface.co").to_owned(),
        hf_token: env.get("HF_TOKEN").map(str::to_owned),
        proxied: proxies.iter().any(|name| env.get(name).is_some()),
        trust: said.trust.clone(),
        python: "python3".to_owned(),
        limits: hub::Limits::default(),
    }
}

/// Where the store is.
pub fn resolve_store(said: &StoreSaid, env: &Env) -> Result<Place, ConfigError> {
    match said.store.as_deref() {
        None => {
            let dir = said.data_dir.clone().unwrap_or_else(|| user_dir(env, "XDG_DATA_HOME", ".local/share").join("vecmill"));
            Ok(Place::File(dir.join("vecmill.db")))
        }
        Some("memory") => Ok(Place::Memory),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Place::Postgres(url.to_owned())),
        // Not repeated: what was meant to be a URL may hold a password.
        Some(_) => impossible("--store must be a URL that begins with postgres:// or the word memory; without it a file in --data-dir is used"),
    }
}

/// How to log.
pub fn resolve_log(said: &super::LogSaid) -> Result<telemetry::Options, ConfigError> {
    use telemetry::LogFormat;
    let format = match said.log_format.as_deref() {
        None if std::io::IsTerminal::is_terminal(&std::io::stderr()) => LogFormat::Pretty,
        None | Some("json") => LogFormat::Json,
        Some("pretty") => LogFormat::Pretty,
        Some(other) => return impossible(format!("--log-format {other:?} must be pretty or json")),
    };
    Ok(telemetry::Options { format, level: said.log_level.clone().unwrap_or_else(|| "info".to_owned()) })
}

/// A word with its own parser, `auto` if nothing is said; the error names the option.
fn named<T>(option: &str, word: Option<&str>, parse: fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    let word = word.unwrap_or("auto");
    parse(word).or_else(|error| impossible(format!("{option} {word:?}: {error}")))
}

/// `$XDG_...`, or below the home directory, or here.
fn user_dir(env: &Env, xdg: &str, below_home: &str) -> PathBuf {
    let home = || env.get("HOME").map(|home| PathBuf::from(home).join(below_home));
    env.get(xdg).map(PathBuf::from).or_else(home).unwrap_or_else(|| PathBuf::from("."))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
