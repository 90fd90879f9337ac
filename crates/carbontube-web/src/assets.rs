//! The pages: files that stand in the binary.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::request::{Request, Response, ResponseBody};

/// A file of the pages.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($path:expr, $file:literal, $content_type:literal) => {
        Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../assets/", $file)),
        }
    };
}

macro_rules! script {
    ($file:literal) => {
        asset!(concat!("/", $file), $file, "text/javascript; charset=utf-8")
    };
}

/// Every file, by its path. A page's address that is not here gets no page: the client
/// keeps its place behind the `#`.
const ASSETS: &[Asset] = &[
    asset!("/icon.svg", "icon.svg", "image/svg+xml"),
    script!("app.js"),
    script!("pipelines.js"),
    script!("overview.js"),
    script!("workers.js"),
    script!("jobs.js"),
    script!("job.js"),
    script!("failures.js"),
    script!("logs.js"),
    script!("events.js"),
    script!("lines.js"),
    script!("actions.js"),
    script!("api.js"),
    script!("chart.js"),
    script!("dom.js"),
    script!("format.js"),
    script!("store.js"),
    script!("stream.js"),
    asset!("/robots.txt", "robots.txt", "text/plain; charset=utf-8"),
];

const STYLE: &str = include_str!("../assets/style.css");
/// Where the style goes in `index.html`.
const STYLE_LINK: &str = "<link rel=\"stylesheet\" href=\"style.css\">";

/// The page with its style inside: a browser shows nothing before it has the style, and
/// asking for it costs a fifth of the first paint (`docs/benchmarks.md`).
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let style = format!("<style>{STYLE}</style>");
    include_str!("../assets/index.html").replacen(STYLE_LINK, &style, 1)
});

/// What browsers may load, and from where: nothing from elsewhere, and of what stands in a
/// page only its own style, by its hash (CSP level 3, section 6.7.3.3).
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'sha256-{hash}'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
});

/// The file at a path.
pub(crate) fn find(request: &Request) -> Option<Response> {
    let page = Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: PAGE.as_bytes(),
    };
    let mut all = ASSETS.iter().chain([&page]);
    let asset = all.find(|asset| asset.path == request.path)?;
    let tag = format!("\"{:016x}\"", hash(asset.bytes));
    let known = request.header("if-none-match").is_some_and(|tags| {
        tags.split(',').any(|known| {
            let known = known.trim();
            known == "*" || known.trim_start_matches("W/") == tag
        })
    });
    let response = Response {
        status: if known { 304 } else { 200 },
        content_type: asset.content_type,
        headers: vec![("etag", tag), ("cache-control", "no-cache".to_owned())],
        body: ResponseBody::Static(if known { b"" } else { asset.bytes }),
    };
    Some(response)
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        let asset = ASSETS.iter().find(|asset| asset.path == path);
        std::str::from_utf8(asset.expect("it is there").bytes).expect("it is text")
    }

    /// A colour's variable, for light and for dark.
    fn colours(name: &str) -> [[u8; 3]; 2] {
        let start = format!("--{name}: light-dark(");
        let (_, rest) = STYLE.split_once(&start).expect("it is a colour");
        let (both, _) = rest.split_once(')').expect("it ends");
        let mut parts = both.split(", ").map(|part| {
            let value = u32::from_str_radix(part.trim_start_matches('#'), 16);
            let [_, red, green, blue] = value.expect("six digits").to_be_bytes();
            [red, green, blue]
        });
        [parts.next(), parts.next()].map(|part| part.expect("one for each scheme"))
    }

    /// The relative luminance of WCAG 2.
    fn luminance(colour: [u8; 3]) -> f64 {
        let [red, green, blue] = colour.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.040_45 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// The lower of the contrasts in light and in dark.
    fn contrast(front: &str, back: &str) -> f64 {
        let (front, back) = (colours(front), colours(back));
        let ratios = front.into_iter().zip(back).map(|(front, back)| {
            let (a, b) = (luminance(front), luminance(back));
            (a.max(b) + 0.05) / (a.min(b) + 0.05)
        });
        ratios.fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn page_has_its_style_inside_and_asks_for_no_other() {
        assert!(PAGE.contains(STYLE), "{STYLE_LINK} is not in index.html");
        assert!(!PAGE.contains("rel=\"stylesheet\""));
        assert!(!STYLE.contains("</"), "it would end the style's element");
    }

    #[test]
    fn every_text_has_the_contrast_of_wcag_aa() {
        let mut pairs = vec![
            ("accent", "accent-soft".to_owned()),
            ("accent-ink", "accent".to_owned()),
            ("ground", "ink".to_owned()),
            ("card", "red".to_owned()),
        ];
        for ink in ["ink", "faint", "accent", "green", "blue", "amber", "red"] {
            pairs.extend(["ground", "card", "grey-soft"].map(|back| (ink, back.to_owned())));
        }
        for ink in ["green", "blue", "amber", "red"] {
            pairs.push((ink, format!("{ink}-soft")));
        }
        for (ink, back) in pairs {
            let ratio = contrast(ink, &back);
            assert!(ratio >= 4.5, "{ink} on {back}: {ratio:.2}");
        }
    }

    #[test]
    fn borders_of_controls_and_lines_of_plots_can_be_seen() {
        for back in ["card", "ground"] {
            let ratio = contrast("edge", back);
            assert!(ratio >= 3.0, "edge on {back}: {ratio:.2}");
        }
        for line in ["blue", "green", "amber", "red", "violet"] {
            let ratio = contrast(line, "card");
            assert!(ratio >= 3.0, "{line} on a card: {ratio:.2}");
        }
    }

    #[test]
    fn no_script_makes_markup_or_code_of_text() {
        let holes = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "eval(",
            "new Function",
            "srcdoc",
        ];
        for asset in ASSETS.iter().filter(|asset| asset.path.ends_with(".js")) {
            for hole in holes {
                assert!(!text(asset.path).contains(hole), "{}: {hole}", asset.path);
            }
        }
    }
}
