//! The scalars of a launch, declared once for the shader, the launch and the CPU implementation.

use smallvec::SmallVec;

/// A launch's scalars, one word each.
pub type Words = SmallVec<[u32; 24]>;

/// A scalar in the shader's struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Its type in WGSL.
    pub wgsl: &'static str,
}

/// A field of a struct of scalars: a number, an array of numbers (members `name0`, `name1`, …), or another struct,
/// whose members are inlined.
pub trait Field: Copy {
    fn declare(name: &str, members: &mut Vec<Member>);
    fn write(self, words: &mut Words);
    fn read(words: &mut std::slice::Iter<u32>) -> Self;
}

macro_rules! number {
    ($type:ty, $wgsl:literal, $to:expr, $from:expr) => {
        impl Field for $type {
            fn declare(name: &str, members: &mut Vec<Member>) {
                members.push(Member { name: name.into(), wgsl: $wgsl });
            }

            fn write(self, words: &mut Words) {
                words.push($to(self));
            }

            fn read(words: &mut std::slice::Iter<u32>) -> Self {
                $from(*words.next().expect("a launch of another kernel's scalars"))
            }
        }
    };
}

number!(u32, "u32", |v| v, |w| w);
number!(i32, "i32", |v| v as u32, |w| w as i32);
number!(f32, "f32", f32::to_bits, f32::from_bits);
// A boolean is 1 or 0.
number!(bool, "u32", |v| v as u32, |w| w != 0);
number!(
    usize,
    "u32",
    |v: usize| {
        debug_assert!(u32::try_from(v).is_ok(), "a scalar of {v} does not fit its word");
        v as u32
    },
    |w| w as usize
);

impl<T: Field, const N: usize> Field for [T; N] {
    fn declare(name: &str, members: &mut Vec<Member>) {
        (0..N).for_each(|i| T::declare(&format!("{name}{i}"), members));
    }

    fn write(self, words: &mut Words) {
        self.into_iter().for_each(|v| v.write(words));
    }

    fn read(words: &mut std::slice::Iter<u32>) -> Self {
        std::array::from_fn(|_| T::read(words))
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn declare(name: &str, members: &mut Vec<Member>) {
        A::declare(name, members);
        B::declare(name, members);
    }

    fn write(self, words: &mut Words) {
        self.0.write(words);
        self.1.write(words);
    }

    fn read(words: &mut std::slice::Iter<u32>) -> Self {
        (A::read(words), B::read(words))
    }
}

/// The members of a struct of scalars in the shader.
pub fn members<F: Field>() -> Vec<Member> {
    let mut members = Vec::new();
    F::declare("", &mut members);
    members
}

/// A launch's words for a struct of scalars.
pub fn words(scalars: impl Field) -> Words {
    let mut words = Words::new();
    scalars.write(&mut words);
    words
}

/// Defines a struct of scalars: its declaration is the shader's (`members`), its value is a launch's (`words`), and a
/// native kernel reads it with `NativeLaunch::scalars`. `for NAME { … }` makes scalars of a struct of another crate, all of
/// whose fields are listed in the order of the words.
#[macro_export]
macro_rules! scalars {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        $crate::scalars! { for $name { $($field: $type),* } }

        // A nested struct is declared and passed by the outer one.
        #[allow(dead_code)]
        impl $name {
            $vis fn members() -> Vec<$crate::kernel::scalars::Member> {
                $crate::kernel::scalars::members::<$name>()
            }

            $vis fn words(self) -> $crate::kernel::scalars::Words {
                $crate::kernel::scalars::words(self)
            }
        }
    };
    (for $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $crate::kernel::scalars::Field for $name {
            #[allow(unused_variables)]
            fn declare(_: &str, members: &mut Vec<$crate::kernel::scalars::Member>) {
                $(<$type as $crate::kernel::scalars::Field>::declare(stringify!($field), members);)*
            }

            #[allow(unused_variables)]
            fn write(self, words: &mut $crate::kernel::scalars::Words) {
                $($crate::kernel::scalars::Field::write(self.$field, words);)*
            }

            #[allow(unused_variables)]
            fn read(words: &mut std::slice::Iter<u32>) -> Self {
                $name { $($field: $crate::kernel::scalars::Field::read(words),)* }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    scalars! {
        struct Shape { rows: usize, strides: [usize; 2] }
    }
    scalars! {
        struct All { shape: Shape, index: i32, scale: f32, adds: bool, word: u32 }
    }

    #[test]
    fn scalars_round_trip_through_words() {
        let names: Vec<_> = All::members().into_iter().map(|m| (m.name, m.wgsl)).collect();
        let expected = [
            ("rows", "u32"),
            ("strides0", "u32"),
            ("strides1", "u32"),
            ("index", "i32"),
            ("scale", "f32"),
            ("adds", "u32"),
            ("word", "u32"),
        ];
        assert_eq!(names, expected.map(|(n, t)| (n.to_string(), t)));

        let shape = Shape { rows: 3, strides: [5, 7] };
        let words = All { shape, index: -2, scale: 0.5, adds: true, word: u32::MAX }.words();
        assert_eq!(words[..], [3, 5, 7, -2i32 as u32, 0.5f32.to_bits(), 1, u32::MAX]);
        let again = All::read(&mut words.iter());
        assert_eq!(again.words(), words);
        assert_eq!((again.index, again.scale, again.adds), (-2, 0.5, true));
    }
}
