//! What a request asks for beside its body: the id in its path, its query parameters, and a page of a listing.

use super::observe::Seen;
use super::{Api, auth};
use crate::service::access::Key;
use crate::wire::Fault;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;

/// A call without a body: what handlers need to let its caller in, and to answer.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) seen: Seen,
    pub(super) headers: HeaderMap,
}

impl FromRequestParts<Arc<Api>> for Call {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, StatusCode> {
        // The outermost layer has seen every request.
        let seen = parts.extensions.get::<Seen>().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(Self { api: api.clone(), seen, headers: parts.headers.clone() })
    }
}

impl Call {
    /// See [`auth::enter`].
    pub(super) async fn enter(&self, scope: Option<&'static str>) -> Result<Option<Arc<Key>>, Fault> {
        auth::enter(&self.api, &self.seen, &self.headers, scope).await
    }
}

/// The id in a path. One that is not UTF-8, or holds a NUL, which PostgreSQL takes in no text, is empty: it names nothing.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok().map(|Path(id)| id);
        Ok(Self(id.filter(|id| !id.contains('\0')).unwrap_or_default()))
    }
}

/// Query parameters as they came. They are judged only once it is known whose they are.
pub(super) struct Parameters(Option<Vec<(String, String)>>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(Query::from_request_parts(parts, state).await.ok().map(|Query(pairs)| pairs)))
    }
}

impl Parameters {
    /// # Errors
    /// `Validation` on `query`.
    pub(super) fn read(self) -> Result<Asked, Fault> {
        let pairs = self.0.ok_or_else(|| Fault::field("query", "is not a query string"))?;
        match pairs.iter().find(|(_, value)| value.contains('\0')) {
            // Not its name, which is the client's own word.
            Some(_) => Err(Fault::field("query", "must not hold a NUL")),
            None => Ok(Asked(pairs)),
        }
    }
}

/// Query parameters that can be read.
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    /// Names and values in the order in which they came.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The last value of a parameter.
    pub(super) fn last(&self, wanted: &str) -> Option<&str> {
        self.pairs().filter(|(name, _)| *name == wanted).last().map(|(_, value)| value)
    }
}

/// Cuts rows, of which one more than `limit` was asked for, to a page; the second value is where the next page begins.
pub(super) fn page<T>(mut rows: Vec<T>, limit: usize, place: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(place);
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_store_can_hold_is_not_asked_for() {
        let asked = |value: &str| Parameters(Some(vec![("after".to_owned(), "b".to_owned()), ("after".to_owned(), value.to_owned())])).read();
        assert_eq!(asked("c").unwrap().last("after"), Some("c"));
        assert!(asked("\0").is_err() && Parameters(None).read().is_err());
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        assert_eq!(page(vec![1, 2, 3], 2, ToString::to_string), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(page(vec![1, 2], 2, ToString::to_string), (vec![1, 2], None));
    }
}
