//! The dashboard's files, which are part of the program.
//!
//! Owns where they are found and what a browser may do with them. All files have
//! the same version, which is that of their contents and stands in their address:
//! so a browser asks for each once, and never has some of one version and some of
//! another. Only the page itself is asked for each time.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{Context, SHA256};
use axum::Router;
use axum::extract::Path;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::State;
use super::problem::Problem;

/// Everything comes from here, nothing stands in the page itself, and nobody else
/// frames it (CSP 3); and no text becomes markup (Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; font-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
/// What stands for it in the page.
const VERSION: &str = "VERSION";
/// Of the digest, as hexadecimal digits.
const VERSION_BYTES: usize = 8;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($path:literal $kind:ident,)*) => {
        /// Each file's path, what it is, and what is in it.
        const FILES: &[(&str, &str, &[u8])] = &[
            $(($path, $kind, include_bytes!(concat!("dashboard/", $path))),)*
        ];
    };
}

files! {
    "app.css" CSS,
    "app.js" JS,
    "favicon.svg" SVG,
    "lib/api.js" JS,
    "lib/chart.js" JS,
    "lib/clock.js" JS,
    "lib/dom.js" JS,
    "lib/format.js" JS,
    "lib/live.js" JS,
    "lib/mqtt.js" JS,
    "lib/route.js" JS,
    "lib/theme.js" JS,
    "lib/ui.js" JS,
    "pages/access.js" JS,
    "pages/client.js" JS,
    "pages/clients.js" JS,
    "pages/login.js" JS,
    "pages/logs.js" JS,
    "pages/overview.js" JS,
    "pages/queue.js" JS,
    "pages/queue_settings.js" JS,
    "pages/queues.js" JS,
    "pages/settings.js" JS,
    "pages/topics.js" JS,
    "pages/trace.js" JS,
    "pages/workbench.js" JS,
    "vendor/LICENSE.mqtt.md" TEXT,
    "vendor/LICENSE.uPlot" TEXT,
    "vendor/mqtt.esm.js" JS,
    "vendor/uPlot.esm.js" JS,
    "vendor/uPlot.min.css" CSS,
}

static PAGE: &str = include_str!("dashboard/index.html");

/// The files, as they are served.
struct Assets {
    version: String,
    /// With the version in it.
    page: String,
    by_path: HashMap<&'static str, (&'static str, &'static [u8])>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut digest = Context::new(&SHA256);
    digest.update(PAGE.as_bytes());
    for (path, _, bytes) in FILES {
        digest.update(path.as_bytes());
        digest.update(bytes);
    }
    let digest = digest.finish();
    let digits = digest.as_ref()[..VERSION_BYTES].iter();
    let version: String = digits.map(|byte| format!("{byte:02x}")).collect();
    let files = FILES
        .iter()
        .map(|(path, kind, bytes)| (*path, (*kind, *bytes)));
    Assets {
        page: PAGE.replace(VERSION, &version),
        by_path: files.collect(),
        version,
    }
});

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(page))
        .route("/assets/{version}/{*path}", get(file))
}

async fn page(headers: HeaderMap) -> Response {
    served(&headers, HTML, ASSETS.page.as_bytes(), "no-cache")
}

async fn file(
    Path((version, path)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let found = ASSETS.by_path.get(path.as_str());
    let (kind, bytes) =
        found.ok_or_else(|| Problem::not_found(format!("there is nothing at {}", uri.path())))?;
    // A page that was open while the broker became another gets what there is now.
    let keeps = match version == ASSETS.version {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    Ok(served(&headers, kind, bytes, keeps))
}

fn served(
    headers: &HeaderMap,
    kind: &'static str,
    bytes: &'static [u8],
    keeps: &'static str,
) -> Response {
    let tag = format!("\"{}\"", ASSETS.version);
    let has_it = (headers.get_all(header::IF_NONE_MATCH).iter()).any(|tags| tags == tag.as_str());
    let said: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, keeps),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut response = match has_it {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => bytes.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in said {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn files_in(folder: &Path, below: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let entry = entry.expect("it can be read");
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => files_in(&entry.path(), &format!("{name}/"), found),
                false => _ = found.insert(name),
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served_but_what_is_for_people() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/dashboard");
        let mut there = BTreeSet::new();
        files_in(Path::new(folder), "", &mut there);
        there.retain(|name| name != "index.html" && name != "vendor/README.md");
        let served: BTreeSet<_> = FILES.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn all_that_the_page_and_the_scripts_name_is_there() {
        let mut named = Vec::new();
        let page = PAGE.split("assets/VERSION/").skip(1);
        named.extend(page.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        assert!(named.len() >= 4, "{named:?}");
        for (path, kind, bytes) in FILES.iter().filter(|file| !file.0.starts_with("vendor/")) {
            if *kind != JS {
                continue;
            }
            let text = std::str::from_utf8(bytes).expect("a script is text");
            let folder = Path::new(path).parent().expect("it is in a folder");
            for quoted in text.split('\'').filter(|quoted| quoted.ends_with(".js")) {
                let mut full = folder.to_path_buf();
                for part in quoted.split('/') {
                    match part {
                        "." => {}
                        ".." => _ = full.pop(),
                        part => full.push(part),
                    }
                }
                named.push(full.to_string_lossy().into_owned());
            }
        }
        for name in named {
            assert!(
                FILES.iter().any(|(path, ..)| *path == name),
                "{name} is not served"
            );
        }
    }
}
