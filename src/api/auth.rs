//! Whose request it is: the bearer token of the `Authorization` header against the keys in force.

use crate::service::access::{Access, Key};
use crate::wire::Fault;
use axum::http::{HeaderMap, header};
use std::sync::Arc;

/// The key of a request, or `None` where no key is asked for.
///
/// # Errors
/// `AuthMissing`, `AuthInvalid`; `InsufficientScope` if the key lacks `scope`.
pub(super) fn authorize(access: &Access, headers: &HeaderMap, scope: &'static str) -> Result<Option<Arc<Key>>, Fault> {
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
    if key.has_scope(scope) { Ok(Some(key)) } else { Err(Fault::InsufficientScope { scope }) }
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
