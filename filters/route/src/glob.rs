//! Patterns in which `*` stands for any text, the empty one included, and everything else for itself.

/// Does the whole text match?
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        // The leftmost place leaves the most for the parts that follow.
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_text() {
        let yes = [
            ("acme", "acme"),
            ("acme*", "acme"),
            ("acme*", "acme-2"),
            ("*.acme", "de.acme"),
            ("*", ""),
            ("**", "x"),
            ("a*b*c", "a-b-b-c"),
            ("*ab*ab", "abxab"),
            ("*ü*", "Müller"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "`{pattern}` should match `{text}`");
        }
        let no = [
            ("acme", "acme2"),
            ("", "x"),
            ("acme*", "Acme"),
            ("a*a", "a"),
            ("*ab*ab", "ab"),
            ("a*b*c", "a-c-b"),
        ];
        for (pattern, text) in no {
            assert!(
                !matches(pattern, text),
                "`{pattern}` should not match `{text}`"
            );
        }
    }
}
