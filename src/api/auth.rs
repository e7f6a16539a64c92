//! Whose request it is: the bearer token of the `Authorization` header against the keys in force.

use super::Api;
use super::observe::Seen;
use crate::service::Caller;
use crate::service::access::{Access, Key};
use crate::service::books::Actor;
use crate::service::jobs::JobOwner;
use crate::service::limits::Exceeded;
use crate::wire::Fault;
use axum::http::{HeaderMap, header};
use std::sync::Arc;

/// User and tenant of everyone on a server that asks for no keys.
pub(super) const DEFAULT: &str = "default";

/// The start of every handler that needs a key: whose request it is, noted for the log, and counted against its limits.
///
/// # Errors
/// As [`authorize`]; `RateLimited`.
pub(super) async fn enter(api: &Api, seen: &Seen, headers: &HeaderMap, scope: Option<&'static str>) -> Result<Option<Arc<Key>>, Fault> {
    let key = match authorize(&api.books.access, headers, scope) {
        Err(fault @ (Fault::AuthMissing | Fault::AuthInvalid)) => return Err(refuse(api, seen, fault)),
        key => key?,
    };
    seen.note_key(key.as_ref());
    match api.books.limiter.enter(key.as_deref(), seen.address).await {
        Ok(Some(pass)) => seen.note_pass(pass),
        Ok(None) => {}
        Err(exceeded) => return Err(limited(seen, exceeded)),
    }
    Ok(key)
}

/// What a caller without a key is told; too many of them from one address have to wait.
pub(super) fn refuse(api: &Api, seen: &Seen, fault: Fault) -> Fault {
    api.books.limiter.enter_stranger(seen.address).map_or_else(|exceeded| limited(seen, exceeded), |()| fault)
}

fn limited(seen: &Seen, exceeded: Exceeded) -> Fault {
    seen.note_exceeded(exceeded.standing);
    Fault::RateLimited { retry_after_s: exceeded.retry_after_s }
}

/// The caller of a request for vectors.
pub(super) fn caller(api: &Api, seen: &Seen, key: Option<&Key>) -> Caller {
    Caller {
        client: key.map_or_else(rand::random, Key::number),
        weight: key.map_or(1, |key| key.weight),
        bulk: false,
        pass: seen.pass().cloned(),
        deadline: seen.arrived + api.options.deadline,
    }
}

/// Who did it, for the audit log.
pub(super) fn actor(key: Option<&Arc<Key>>) -> Actor {
    let (id, tenant) = key.map_or(("open", DEFAULT), |key| (&key.id, &key.tenant));
    Actor { id: id.to_owned(), tenant: tenant.to_owned() }
}

/// The same for what is fetched for the owner of a job.
pub(super) fn fetcher(owner: &JobOwner) -> Actor {
    Actor { id: owner.key_id.clone(), tenant: owner.tenant.clone() }
}

/// The key of a request, or `None` where no key is asked for.
///
/// # Errors
/// `AuthMissing`, `AuthInvalid`; `InsufficientScope` if the key lacks `scope`.
fn authorize(access: &Access, headers: &HeaderMap, scope: Option<&'static str>) -> Result<Option<Arc<Key>>, Fault> {
    if access.open() {
        // Clients always send some key; here none is needed, whatever it is.
        return Ok(None);
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Fault::AuthMissing)?;
    if values.next().is_some() {
        return Err(Fault::AuthInvalid);
    }
    let token = value.to_str().ok().and_then(bearer).ok_or(Fault::AuthInvalid)?;
    let key = access.authenticate(token).ok_or(Fault::AuthInvalid)?;
    match scope {
        Some(scope) if !key.has_scope(scope) => Err(Fault::InsufficientScope { scope }),
        _ => Ok(Some(key)),
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn only_a_bearer_token_is_a_token() {
        for good in ["Bearer sgk_1", "bearer sgk_1", "BEARER  sgk_1 "] {
            assert_eq!(bearer(good), Some("sgk_1"), "{good}");
        }
        for bad in ["", "sgk_1", "Bearer", "Bearer ", "Basic sgk_1", "Bearersgk_1", "Token Bearer sgk_1"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }
}
