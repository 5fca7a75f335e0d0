//! Files of at most 800 lines and functions of at most 80; what is longer is written down here with its reason, and
//! may not grow. The list only ever gets shorter: an exception that is no longer needed is a violation too.

use super::{
    Violation,
    source::{Source, after_closing, identifier},
};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 80;

/// What may be longer, until somebody cuts it.
pub const EXCEPTIONS: &[Exception] = &[];

pub struct Exception {
    pub path: &'static str,
    /// `None` for the file itself.
    pub function: Option<&'static str>,
    pub lines_max: usize,
    pub reason: &'static str,
}

pub fn check(sources: &[Source], exceptions: &[Exception]) -> Vec<Violation> {
    let measured: Vec<Measure<'_>> = sources.iter().flat_map(measure).collect();
    let mut violations: Vec<Violation> =
        measured.iter().filter_map(|measure| judge(measure, exceptions)).collect();
    violations.extend(exceptions.iter().filter_map(|exception| needless(exception, &measured)));
    violations
}

/// The lines of a file or of a function in it.
struct Measure<'a> {
    source: &'a Source,
    function: Option<&'a str>,
    at: usize,
    lines: usize,
}

impl Measure<'_> {
    fn lines_max(&self) -> usize {
        if self.function.is_some() { FUNCTION_LINES_MAX } else { FILE_LINES_MAX }
    }

    fn is(&self, exception: &Exception) -> bool {
        self.source.path.ends_with(exception.path) && self.function == exception.function
    }
}

fn measure(source: &Source) -> Vec<Measure<'_>> {
    let file = Measure { source, function: None, at: 0, lines: source.text.lines().count() };
    let functions = source.words("fn").filter_map(|at| measure_function(source, at));
    std::iter::once(file).chain(functions).collect()
}

/// The function whose `fn` is at `at`; `None` for a function type or a declaration without a body.
fn measure_function(source: &Source, at: usize) -> Option<Measure<'_>> {
    let code = source.code.as_str();
    let name_at = at + "fn ".len();
    let name = identifier(code.get(name_at..)?)?;
    let parameters = name_at + code[name_at..].find('(')?;
    let mut after = after_closing(code, parameters)?;
    loop {
        match code.as_bytes().get(after)? {
            b'{' => break,
            b';' => return None,
            b'[' | b'(' => after = after_closing(code, after)?,
            _ => after += 1,
        }
    }
    let end = after_closing(code, after)?;
    let lines = 1 + source.line(end) - source.line(at);
    Some(Measure { source, function: Some(name), at, lines })
}

fn judge(measure: &Measure<'_>, exceptions: &[Exception]) -> Option<Violation> {
    let exception = exceptions.iter().find(|exception| measure.is(exception));
    let lines_max = exception.map_or(measure.lines_max(), |exception| exception.lines_max);
    if measure.lines <= lines_max {
        return None;
    }
    let what = match measure.function {
        Some(name) => format!("fn {name} has {} lines, more than {lines_max}", measure.lines),
        None => format!("the file has {} lines, more than {lines_max}", measure.lines),
    };
    let remedy = "cut it along its parts; if it is better whole, give the reason in EXCEPTIONS in xtask/src/tidy/size.rs";
    Some(Violation::new(measure.source.place(measure.at), what, remedy))
}

fn needless(exception: &Exception, measured: &[Measure<'_>]) -> Option<Violation> {
    let found = measured.iter().find(|measure| measure.is(exception));
    if found.is_some_and(|measure| measure.lines > measure.lines_max()) && !exception.reason.is_empty() {
        return None;
    }
    let what = format!(
        "the exception for {} {} is not needed or has no reason",
        exception.path,
        exception.function.unwrap_or("")
    );
    Some(Violation::new(
        "xtask/src/tidy/size.rs",
        what,
        "remove it from EXCEPTIONS, or write down the reason",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!(
            "impl X {{\n    fn long(a: [u8; 4]) -> [u8; 2]\n    where\n    {{\n{}    }}\n}}\n",
            "        x();\n".repeat(lines - 4)
        )
    }

    fn whats(text: &str, exceptions: &[Exception]) -> Vec<String> {
        let sources = [Source::new("crates/a/src/x.rs".into(), text.into())];
        check(&sources, exceptions).into_iter().map(|violation| violation.what).collect()
    }

    fn exception(function: Option<&'static str>, lines_max: usize, reason: &'static str) -> [Exception; 1] {
        [Exception { path: "crates/a/src/x.rs", function, lines_max, reason }]
    }

    #[test]
    fn long_functions_are_found_to_the_line() {
        assert_eq!(whats(&function(80), &[]), [""; 0]);
        assert_eq!(whats(&function(81), &[]), ["fn long has 81 lines, more than 80"]);
        assert_eq!(whats("type F = fn(u8) -> u8;\ntrait T {\n    fn short(&self);\n}\n", &[]), [""; 0]);
    }

    #[test]
    fn long_files_are_found_to_the_line() {
        assert_eq!(whats(&"//\n".repeat(800), &[]), [""; 0]);
        assert_eq!(whats(&"//\n".repeat(801), &[]), ["the file has 801 lines, more than 800"]);
    }

    #[test]
    fn an_exception_is_a_ratchet() {
        assert_eq!(whats(&function(90), &exception(Some("long"), 90, "a table")), [""; 0]);
        assert_eq!(
            whats(&function(91), &exception(Some("long"), 90, "a table")),
            ["fn long has 91 lines, more than 90"]
        );
        assert_eq!(
            whats(&function(70), &exception(Some("long"), 90, "a table")).len(),
            1,
            "no longer needed"
        );
        assert_eq!(whats(&function(90), &exception(Some("long"), 90, "")).len(), 1, "without a reason");
        assert_eq!(whats(&"//\n".repeat(900), &exception(None, 900, "one table")), [""; 0]);
    }
}
