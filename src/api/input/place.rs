//! The places that inputs may come from, as the operator lists them, and what lies below one. Pure.

use axum::http::Uri;
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Everything below one address or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `https://HOST[:PORT]/PATH/`, or over http.
    Remote {
        scheme: String,
        /// In lower case.
        host: String,
        port: u16,
        /// Begins and ends with a slash.
        path: String,
    },
    /// `file:///FOLDER/`.
    Local { root: PathBuf },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("{text:?} must be an address that ends with a slash, such as https://files.example.com/batches/ or file:///srv/batches/");
        if !text.ends_with('/') {
            return Err(fault());
        }
        if let Some(root) = local_path(text) {
            return Ok(Self::Local { root });
        }
        let uri = plain(text).filter(|uri| uri.query().is_none()).ok_or_else(fault)?;
        let (scheme, host, port) = origin(&uri).ok_or_else(fault)?;
        Ok(Self::Remote { scheme, host, port, path: uri.path().to_owned() })
    }
}

impl Place {
    /// True if the address lies below this place.
    pub(super) fn holds(&self, uri: &Uri) -> bool {
        match self {
            Self::Remote { scheme, host, port, path } => {
                origin(uri).is_some_and(|(own, name, number)| own == *scheme && name == *host && number == *port) && uri.path().starts_with(path)
            }
            Self::Local { .. } => false,
        }
    }

    /// True if it is reached over the network.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }
}

/// An http or https address whose path means what it says: no user, no dots that climb, nothing that one server reads as the other does not.
pub(super) fn plain(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let climbs = |part: &str| {
        let part = percent_decode_str(part).collect::<Vec<u8>>();
        part == b"." || part == b".." || part.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0..=31))
    };
    let fine = matches!(uri.scheme_str(), Some("http" | "https")) && !uri.authority()?.as_str().contains('@') && !uri.path().split('/').any(climbs);
    fine.then_some(uri)
}

fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The path of a `file:///...` address.
pub(super) fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").filter(|path| path.starts_with('/'))?;
    let path = percent_decode_str(path).decode_utf8().ok()?;
    (!path.contains('\0')).then(|| Path::new(&*path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(place: &str, url: &str) -> bool {
        plain(url).is_some_and(|uri| place.parse::<Place>().unwrap().holds(&uri))
    }

    #[test]
    fn an_address_lies_below_a_place_or_not() {
        let place = "https://files.example.com/a/";
        for good in ["https://files.example.com/a/x.jsonl", "https://FILES.example.com:443/a/b/c?X-Signature=1%2F2"] {
            assert!(holds(place, good), "{good}");
        }
        for bad in [
            "http://files.example.com/a/x",
            "https://files.example.com:8443/a/x",
            "https://files.example.com.evil/a/x",
            "https://files.example.com@evil/a/x",
            "https://evil/a/x",
            "https://files.example.com/b",
            "https://files.example.com/a",
            "https://files.example.com/a/../b",
            "https://files.example.com/a/%2e%2E/b",
            "https://files.example.com/a/..%2fb",
            "https://files.example.com/a/x%5c..%5cb",
            "https://files.example.com/a/%00",
            "ftp://files.example.com/a/x",
            "/a/x",
        ] {
            assert!(!holds(place, bad), "{bad}");
        }
    }

    #[test]
    fn places_end_with_a_slash_and_are_of_known_kinds() {
        assert_eq!("file:///srv/a%20b/".parse(), Ok(Place::Local { root: "/srv/a b/".into() }));
        for bad in ["https://x/a", "https://x/?a/", "ftp://x/", "s3://b/", "file://host/x/", "/srv/", "https://u@x/", "https:///"] {
            assert!(bad.parse::<Place>().unwrap_err().contains("slash"), "{bad}");
        }
    }
}
