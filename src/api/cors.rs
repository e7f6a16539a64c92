//! Browsers: which pages of other origins may call this server. None unless the operator lists them.

use axum::http::{HeaderName, HeaderValue, Method};
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may keep the permission.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// What scripts may read beside the body.
const EXPOSED: [&str; 8] = [
    "retry-after",
    "server-timing",
    "x-embedding-space",
    "x-request-id",
    "x-scaigrid-ratelimit-limit",
    "x-scaigrid-ratelimit-remaining",
    "x-scaigrid-ratelimit-reset",
    "x-should-retry",
];

/// The layer for these origins; `*` = any. Keys are sent by the script, never by the browser on its own: credentials are not allowed.
pub(super) fn layer(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // Clients add headers of their own, such as x-stainless-...
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(MAX_AGE)
}

/// An origin as browsers send it: scheme, host, maybe a port, and nothing else.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return text == "*" };
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]_".contains(&byte);
    matches!(scheme, "http" | "https") && !host.is_empty() && host.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for good in ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:80"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "app.example.com", "https://app.example.com/", "https://", "ftp://x", "https://*.example.com", "https://App.example.com", "null"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
