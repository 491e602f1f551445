//! The live page at `/`: one document of HTML, CSS and JavaScript, embedded in the binary. It holds no data, and is sent
//! without a token; what it shows it reads from the API by WebSocket, with the token that its user gives.
//!
//! ```text
//!  page/page.html <-- page/page.css
//!                 <-- page/{address,rpc,words,cells,map,panels,find,main}.js   one module, in this order
//! ```
//!
//! The files are put together once a process, so a browser makes one request for the page and one for the WebSocket. The
//! Content-Security-Policy names the hashes of the style and of the script: a browser runs no other, whatever a VM is called.

use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// Each file uses names of those before it.
const SCRIPT: &str = concat!(
    include_str!("page/address.js"),
    include_str!("page/rpc.js"),
    include_str!("page/words.js"),
    include_str!("page/cells.js"),
    include_str!("page/map.js"),
    include_str!("page/panels.js"),
    include_str!("page/find.js"),
    include_str!("page/main.js"),
);

/// The document, and the policy for it.
struct Page {
    document: String,
    policy: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    document: HTML.replacen("{{style}}", STYLE, 1).replacen("{{script}}", SCRIPT, 1),
    policy: [
        "default-src 'none'",
        &format!("style-src '{}'", hash(STYLE)),
        &format!("script-src '{}'", hash(SCRIPT)),
        "connect-src 'self'",
        // The icon.
        "img-src data:",
        // No string becomes markup or code.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    .join("; "),
});

/// A source expression of Content Security Policy Level 3.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// Answers `GET /`.
pub(super) async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &PAGE.policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // The page of a new release comes at once.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.document.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The limit for all that a browser loads.
    const LARGEST: usize = 100_000;

    #[test]
    fn the_page_is_small_and_loads_no_other_resource() {
        let document = &PAGE.document;
        assert!(document.len() < LARGEST, "{} bytes", document.len());
        assert!(!document.contains("{{"), "a part is missing");
        // The namespace of the icon's SVG is a name, and no address that is loaded.
        let text = document.replace("http://www.w3.org/2000/svg", "");
        for reference in ["http:", "https:", "src=", "@import", "import(", "import {"] {
            assert!(!text.contains(reference), "the page loads something: {reference}");
        }
        assert!(!STYLE.contains("url("), "the style loads something");
    }

    /// The colours of a theme of the style sheet, from the first line of its block to the end of the block.
    fn colours(from: &str) -> BTreeMap<&'static str, [f64; 3]> {
        let (_, rest) = STYLE.split_once(from).expect("a theme");
        let (block, _) = rest.split_once('}').expect("the end of a block");
        let pairs = block.split(';').filter_map(|pair| pair.trim().strip_prefix("--")?.split_once(": #"));
        let channel = |hex: &str, at: usize| {
            let digits = if hex.len() == 3 { hex[at..=at].repeat(2) } else { hex[2 * at..2 * at + 2].to_owned() };
            f64::from(u8::from_str_radix(&digits, 16).expect("a colour")) / 255.0
        };
        pairs.map(|(name, hex)| (name, [channel(hex, 0), channel(hex, 1), channel(hex, 2)])).collect()
    }

    /// WCAG 2.2, "contrast ratio" and "relative luminance".
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |colour: [f64; 3]| {
            let [r, g, b] = colour.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn texts_and_marks_stand_out_from_their_ground_in_both_themes() {
        for (theme, from) in [("light", ":root {"), ("dark", "(prefers-color-scheme: dark) {\n  :root {")] {
            let colours = colours(from);
            let compare = |text: &str, ground: &str, least: f64| {
                let ratio = contrast(colours[text], colours[ground]);
                assert!(ratio >= least, "{theme}: {text} on {ground} has {ratio:.2}, and needs {least}");
            };
            // WCAG 2.2, 1.4.3 (AA): text.
            for text in ["ink", "soft", "accent", "good", "busy", "bad"] {
                compare(text, "card", 4.5);
            }
            for (text, ground) in
                [("ink", "ground"), ("soft", "ground"), ("ink", "sunk"), ("bad", "bad-ground"), ("on-accent", "accent")]
            {
                compare(text, ground, 4.5);
            }
            // 1.4.11: the parts that identify a shape.
            let uses: Vec<&str> =
                colours.keys().copied().filter(|name| name.starts_with("use-") && *name != "use-free").collect();
            assert_eq!(uses.len(), 10, "{uses:?}");
            for of in uses {
                compare(of, "card", 3.0);
                compare(of, "use-free", 3.0);
                compare(of, "mark", 3.0);
            }
        }
    }

    #[test]
    fn no_text_of_a_tenant_can_become_markup_or_code() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"]
        {
            assert!(!SCRIPT.contains(way), "the script uses {way}");
        }
        for inline in [" onclick=", " onload=", " onsubmit=", " onkeydown=", " style=", "javascript:"] {
            assert!(!HTML.contains(inline), "the document has{inline}");
        }
        assert!(PAGE.policy.starts_with("default-src 'none'; "), "{}", PAGE.policy);
        for loophole in ["unsafe", "*", "blob:", "http"] {
            assert!(!PAGE.policy.contains(loophole), "{}", PAGE.policy);
        }
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_documents_parts() {
        for (open, close, text) in [("<style>", "</style>", STYLE), ("<script type=\"module\">", "</script>", SCRIPT)] {
            let (_, rest) = PAGE.document.split_once(open).expect("an opening tag");
            let (inside, rest) = rest.split_once(close).expect("a closing tag");
            assert_eq!(inside, text, "{close} stands inside");
            assert!(!rest.contains(open), "{open} stands twice");
            assert!(PAGE.policy.contains(&hash(inside)));
        }
    }
}
