//! The OpenAPI document says what the routes do, and its page needs no internet.

use crate::fake::Server;
use crate::raw::{Reply, send};
use serde_json::Value;
use std::collections::BTreeSet;
use vecmill::api::{Options, paths};

fn get(server: &Server, path: &str) -> Reply {
    send(server.addr, "GET", path, &[], "")
}

fn document() -> Value {
    let reply = get(&Server::start(Options::default()), "/openapi.json");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    reply.json()
}

/// Every operation with its method and path.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch", "head", "options"] {
            if let Some(operation) = item.get(method) {
                found.push((method.to_uppercase(), path.clone(), operation));
            }
        }
    }
    found
}

#[test]
fn it_names_every_route_with_its_methods_and_no_other() {
    let document = document();
    let named: BTreeSet<_> = operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let mut served = BTreeSet::new();
    // The document and its page do not describe themselves.
    for (path, methods) in paths().into_iter().filter(|(path, _)| !path.starts_with("/docs") && *path != "/openapi.json") {
        let path = path.replace("{*", "{");
        served.extend(methods.split(", ").filter(|method| *method != "HEAD").map(|method| (method.to_owned(), path.clone())));
    }
    assert!(served.len() >= 10, "{served:?}");
    assert_eq!(named, served);
}

#[test]
fn every_operation_says_what_it_answers_in_the_form_of_its_layer() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let case = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{case}: its operationId is taken");
        assert!(operation["responses"].get("200").is_some(), "{case}");
        assert!(operation["summary"].is_string() || operation["description"].is_string(), "{case} says nothing");
        let probe = path.starts_with("/health") || path == "/metrics";
        let fault = operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let openai = ["/oai", "/v1/embeddings", "/v1/files", "/v1/batches"].iter().any(|prefix| path.starts_with(prefix));
        let expected = if openai { "#/components/schemas/OpenAiFault" } else { "#/components/schemas/NativeFault" };
        assert_eq!(fault, (!probe).then_some(expected), "{case}");
        assert_eq!(operation["responses"].get("422").is_some(), !probe && !openai, "{case}");
        assert_eq!(operation.get("security").is_some(), probe, "{case}: only probes need no key");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    for reference in found {
        let path = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(path).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn the_page_needs_no_internet() {
    let server = Server::start(Options::default());
    let moved = get(&server, "/docs");
    assert_eq!((moved.status, moved.header("location")), (308, Some("docs/")));
    let page = get(&server, "/docs/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    let page = text(&page);
    let links: Vec<&str> = page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".png")).collect();
    assert!(links.len() >= 4, "{page}");
    for link in links {
        assert!(!link.contains("//"), "{link} leads elsewhere");
        assert_eq!(get(&server, &format!("/docs/{}", link.trim_start_matches("./"))).status, 200, "{link}");
    }
    let setup = text(&get(&server, "/docs/swagger-initializer.js"));
    assert!(setup.contains("../openapi.json") && setup.contains("\"validatorUrl\": \"none\""), "{setup}");
    assert!(!setup.contains("://"), "{setup}");
    for missing in ["/docs/nothing.js", "/docs/../Cargo.toml", "/docs/%2e%2e%2fCargo.toml"] {
        assert_eq!((get(&server, missing).status, get(&server, missing).code()), (404, "NOT_FOUND".to_owned()), "{missing}");
    }
}

/// A body as text, unpacked if need be.
fn text(reply: &Reply) -> String {
    let mut text = String::new();
    match reply.header("content-encoding") {
        Some("gzip") => drop(std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&reply.body[..]), &mut text).unwrap()),
        _ => text.push_str(std::str::from_utf8(&reply.body).unwrap()),
    }
    text
}
