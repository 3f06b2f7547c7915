/** The form of an entry in the table of `finetune`'s options, and the types that follow from a table. */
import type { Kind } from "./kinds.js";

/**
 * The effect of another value when a run is resumed: `fixed` throws, `reported` is followed and warned about, `free` is
 * followed silently.
 */
export type WhenResuming = "fixed" | "reported" | "free";

/** How `memory` may choose a value: if the option is absent, or such that the rows of a step stay the same. */
export type ByMemory = "if absent" | "same rows";

/** The properties of an option, without the kind of its value. */
export interface Facts<
  Value,
  Flag extends string | undefined,
  Default extends Value | undefined,
  Memory extends ByMemory | undefined,
> {
  /** The option's flag, such as `--patience <n>`; absent if the command line lacks the option. */
  readonly flag?: Flag;
  /** The description in `--help`, in the schema of config files and in the docs. */
  readonly help: string;
  readonly default?: Default;
  readonly whenResuming: WhenResuming;
  /** Absent if `memory` must not choose the value. */
  readonly byMemory?: Memory;
  /** The name of the option that this one replaces. */
  readonly excludes?: string;
  /** Whether the value names files that a relocated run looks for in its original folder. */
  readonly relocated?: true;
  /** False for options that the record of a run omits. */
  readonly recorded?: false;
  /** The kind of the flag's value, if the command line accepts less than the library. */
  readonly onCommandLine?: Kind<Value>;
}

/** An option. `Text` is the type of the value that the command line parses. */
export interface Option<
  Value,
  Text = Value,
  Flag extends string | undefined = string | undefined,
  Default extends Value | undefined = Value | undefined,
  Memory extends ByMemory | undefined = ByMemory | undefined,
> extends Facts<Value, Flag, Default, Memory> {
  readonly kind: Kind<Value, Text>;
  readonly default: Default;
  readonly byMemory: Memory;
}

/** Any option. */
export type AnyOption = Option<unknown, unknown>;

/** Options that are given together in one object of type `Value`, by default the type of all fields. */
export interface Group<Fields, Value = "all fields"> {
  readonly fields: Fields;
  readonly whenResuming?: WhenResuming | undefined;
  /** Whether the fields are all of the object's properties. */
  readonly complete: boolean;
  /** Carries the type; never set. */
  readonly type?: Value;
}

/** A group with any fields. */
export type AnyGroup = Group<Readonly<Record<string, AnyOption>>, unknown>;

/** The entries by the names of the options. */
export type Table = Readonly<Record<string, AnyOption | AnyGroup>>;

/** The type of the value of an entry. */
export type ValueOf<Entry> = Entry extends { readonly fields: infer Fields; readonly type?: infer Value }
  ? Value extends "all fields"
    ? Shown<OptionsOf<Fields>>
    : Value
  : Entry extends { readonly kind: Kind<infer Value, unknown> }
    ? Value
    : never;

/** The options of a table, all optional. Each property has the documentation of its entry. */
export type OptionsOf<Entries> = { -readonly [Name in keyof Entries]?: ValueOf<Entries[Name]> | undefined };

/** The same type, which editors and the reference show by its properties. */
type Shown<T> = T extends infer U ? { [Name in keyof U]: U[Name] } : never;

/** The options of a table with their defaults. */
export type CompletedOf<Entries> = {
  -readonly [Name in keyof Entries]: Entries[Name] extends { readonly default: infer Default }
    ? undefined extends Default
      ? ValueOf<Entries[Name]> | undefined
      : ValueOf<Entries[Name]>
    : ValueOf<Entries[Name]> | undefined;
};

/** Makes an entry. */
export function option<
  Value,
  Text,
  const Flag extends string | undefined = undefined,
  const Default extends Value | undefined = undefined,
  const Memory extends ByMemory | undefined = undefined,
>(
  kind: Kind<Value, Text>,
  facts: Facts<Value, Flag, Default, Memory>,
): Option<Value, Text, Flag, Default, Memory> {
  return { kind, ...facts, default: facts.default as Default, byMemory: facts.byMemory as Memory };
}

/** Makes a group of options. Other properties of its object are unknown options. */
export function group<const Fields extends Readonly<Record<string, AnyOption>>>(
  fields: Fields,
): Group<Fields> {
  return { fields, complete: true };
}

/** Makes a group from some properties of the type `Value`, whose use checks the others. */
export function groupOf<Value>() {
  return <const Fields extends Readonly<Partial<Record<keyof Value, AnyOption>>>>(
    whenResuming: WhenResuming,
    fields: Fields,
  ): Group<Fields, Value> => ({ fields, whenResuming, complete: false });
}

export function isGroup(entry: AnyOption | AnyGroup): entry is AnyGroup {
  return "fields" in entry;
}
