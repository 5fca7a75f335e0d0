//! The shape of the one declaration of all keys ([`super::keys`]): from it come the types, the defaults, the checks,
//! `config default` and the reference.

use super::{
    problem::Problem,
    tree::{Content, Node},
    value::FromNode,
};

/// A section as declared.
pub struct Section {
    /// Dotted, like `server.well_known`.
    pub path: &'static str,
    /// Lines of Markdown, each with a leading space as `///` leaves it.
    pub doc: &'static [&'static str],
    pub keys: &'static [Key],
}

/// A key as declared.
pub struct Key {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    pub expects: &'static str,
    pub secret: bool,
    /// TOML.
    pub default: Option<&'static str>,
    /// TOML, of a key without default.
    pub example: Option<&'static str>,
}

/// The value of one key; `None` (with a problem) if it cannot be had.
pub fn read_key<T: FromNode>(
    section: Option<&Node>,
    path: &str,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let node = section.and_then(|section| match &section.content {
        Content::Table(table) => table.get(name),
        _ => None,
    });
    let Some(node) = node else { return T::absent() };
    let value = T::from_node(node);
    value.map_err(|problem| problems.push(problem.within(&format!("{path}.{name}")))).ok()
}

/// Declares sections and keys. Per key: documentation, name, type, and `= default` or `=> example`.
macro_rules! declare {
    ($(
        $(#[doc = $section_doc:literal])*
        [$path:literal] $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $ty:ty $(= $default:tt)? $(=> $example:tt)?;
            )*
        }
    )*) => {
        /// The whole configuration, checked.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            pub struct $Section {
                $($(#[doc = $doc])* pub $key: $ty,)*
            }

            impl $Section {
                fn read(root: &Node, problems: &mut Vec<Problem>) -> Option<Self> {
                    let section = root.get($path);
                    $(let $key = read_key::<$ty>(section, $path, stringify!($key), problems);)*
                    Some(Self { $($key: $key?),* })
                }
            }
        )*

        impl Config {
            /// Reads every section of a merged tree; `None` if a problem was found.
            pub fn read(root: &Node, problems: &mut Vec<Problem>) -> Option<Self> {
                $(let $section = $Section::read(root, problems);)*
                Some(Self { $($section: $section?),* })
            }
        }

        pub const SECTIONS: &[Section] = &[$(
            Section {
                path: $path,
                doc: &[$($section_doc),*],
                keys: &[$(
                    Key {
                        name: stringify!($key),
                        doc: &[$($doc),*],
                        expects: <$ty as FromNode>::EXPECTS,
                        secret: <$ty as FromNode>::SECRET,
                        default: declare!(@text $($default)?),
                        example: declare!(@text $($example)?),
                    },
                )*],
            },
        )*];
    };
    (@text) => { None };
    (@text $text:tt) => { Some(stringify!($text)) };
}

pub(super) use declare;
