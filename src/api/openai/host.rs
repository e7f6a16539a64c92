//! A host name of its own for the OpenAI layer, as the hosted service has one: there `/v1/...` is OpenAI's, `/v1/models` too.

use axum::extract::Request;
use axum::http::uri::{Authority, PathAndQuery, Uri};
use axum::http::{HeaderMap, header};

/// Sends a request for one of `hosts` to the OpenAI layer; others pass unchanged.
pub(in crate::api) fn route(hosts: &[String], mut request: Request) -> Request {
    if is_one_of(hosts, request.uri(), request.headers())
        && let Some(uri) = under_oai(request.uri())
    {
        *request.uri_mut() = uri;
    }
    request
}

/// Whether the request is for one of the hosts; case, port and a final dot do not matter.
fn is_one_of(hosts: &[String], uri: &Uri, headers: &HeaderMap) -> bool {
    // An address in the request line counts before the header.
    let from_header = || headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let Some(authority) = uri.authority().cloned().or_else(from_header) else { return false };
    let host = authority.host().trim_end_matches('.');
    hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
}

/// `/v1/...` becomes `/oai/v1/...`.
fn under_oai(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix("/v1")?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let path = format!("/oai{}", uri.path_and_query()?);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn path(uri: &str, host: &str) -> String {
        let request = Request::builder().uri(uri).header("host", host).body(Body::empty()).unwrap();
        route(&["openai.example.com".to_owned()], request).uri().path_and_query().unwrap().to_string()
    }

    #[test]
    fn only_the_host_of_the_layer_has_its_paths_under_v1() {
        for host in ["openai.example.com", "OpenAI.example.com:8000", "openai.example.com."] {
            assert_eq!(path("/v1/models", host), "/oai/v1/models", "{host}");
        }
        assert_eq!(path("/v1/models/a%2Fb?x=%20", "openai.example.com"), "/oai/v1/models/a%2Fb?x=%20");
        for other in ["example.com", "openai.example.com.evil", "", "[::1]:8000"] {
            assert_eq!(path("/v1/models", other), "/v1/models", "{other}");
        }
        for other in ["/oai/v1/models", "/health", "/v1x", "/"] {
            assert_eq!(path(other, "openai.example.com"), other);
        }
        assert_eq!(path("http://openai.example.com/v1/models", "example.com"), "/oai/v1/models");
    }
}
