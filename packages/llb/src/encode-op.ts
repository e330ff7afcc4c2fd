import type {
  ContentCache,
  ExecBody,
  FileActionBody,
  MountBody,
  Op,
  OpBody,
  OwnerBody,
  UserBody,
} from "./op.ts";
import { sortedKeys, WireWriter } from "./wire.ts";

const NETWORK = { sandbox: 0, host: 1, none: 2 } as const;
const SECURITY = { sandbox: 0, insecure: 1 } as const;
const MOUNT = { bind: 0, secret: 1, ssh: 2, cache: 3, tmpfs: 4 } as const;
const SHARING = { shared: 0, private: 1, locked: 2 } as const;
const CONTENT_CACHE: Record<ContentCache, number> = { default: 0, on: 1, off: 2 };

const writer = new WireWriter();

/**
 * Bytes of an op, equal to those of Go's deterministic marshalling, so that vertex digests agree. Throws
 * `invalid_argument` for text without a UTF-8 form.
 */
export function encodeOp(op: Op): Uint8Array {
  writer.reset();
  for (const input of op.inputs) {
    writer.message(1, () => {
      writer.string(1, input.digest);
      writer.int(2, input.index);
    });
  }
  const platform = op.platform;
  if (platform !== undefined) {
    writer.message(10, () => {
      writer.string(1, platform.architecture);
      writer.string(2, platform.os);
      writer.string(3, platform.variant);
      writer.string(4, platform.osVersion);
      writer.strings(5, platform.osFeatures);
    });
  }
  if (op.constraints !== undefined) writer.message(11, () => writer.strings(1, op.constraints));
  // Go's protobuf writes the fields of a oneof behind all others.
  if (op.body !== undefined) encodeBody(op.body);
  return writer.finish();
}

function encodeBody(body: OpBody): void {
  switch (body.kind) {
    case "exec":
      writer.message(2, () => encodeExec(body.exec));
      break;
    case "source":
      writer.message(3, () => {
        writer.string(1, body.source.identifier);
        writer.stringMap(2, body.source.attrs);
      });
      break;
    case "file":
      writer.message(4, () => {
        for (const action of body.actions) writer.message(2, () => encodeAction(action));
      });
      break;
    case "build":
      writer.message(5, () => {
        writer.int(1, body.build.builder);
        for (const key of sortedKeys(body.build.inputs)) {
          writer.message(2, () => {
            writer.element(1, key);
            writer.message(2, () => writer.int(1, body.build.inputs.get(key)));
          });
        }
        writer.stringMap(4, body.build.attrs);
      });
      break;
    case "merge":
      writer.message(6, () => {
        for (const input of body.inputs) writer.message(1, () => writer.int(1, input));
      });
      break;
    case "diff":
      writer.message(7, () => {
        writer.message(1, () => writer.int(1, body.lower));
        writer.message(2, () => writer.int(1, body.upper));
      });
      break;
    case "passthrough":
      writer.message(8, () => {
        writer.string(1, body.id);
        writer.packed(2, body.outputs);
      });
      break;
  }
}

function encodeExec(exec: ExecBody): void {
  writer.message(1, () => encodeMeta(exec));
  for (const mount of exec.mounts) writer.message(2, () => encodeMount(mount));
  writer.int(3, NETWORK[exec.network]);
  writer.int(4, SECURITY[exec.security]);
  for (const secret of exec.secretEnv) {
    writer.message(5, () => {
      writer.string(1, secret.id);
      writer.string(2, secret.name);
      writer.bool(3, secret.optional);
    });
  }
  for (const device of exec.cdiDevices) {
    writer.message(6, () => {
      writer.string(1, device.name);
      writer.bool(2, device.optional);
    });
  }
}

function encodeMeta(exec: ExecBody): void {
  writer.strings(1, exec.args);
  writer.strings(2, exec.env);
  writer.string(3, exec.cwd);
  writer.string(4, exec.user);
  const proxy = exec.proxyEnv;
  if (proxy !== undefined) {
    writer.message(5, () => {
      writer.string(1, proxy.httpProxy);
      writer.string(2, proxy.httpsProxy);
      writer.string(3, proxy.ftpProxy);
      writer.string(4, proxy.noProxy);
      writer.string(5, proxy.allProxy);
    });
  }
  for (const entry of exec.extraHosts) {
    writer.message(6, () => {
      writer.string(1, entry.host);
      writer.string(2, entry.ip);
    });
  }
  writer.string(7, exec.hostname);
  for (const limit of exec.ulimits) {
    writer.message(9, () => {
      writer.string(1, limit.name);
      writer.int(2, limit.soft);
      writer.int(3, limit.hard);
    });
  }
  writer.string(10, exec.cgroupParent);
  // BuildKit's clients ask for it on every exec, whatever the operating system.
  writer.bool(11, true);
  writer.packed(12, exec.validExitCodes);
}

function encodeMount(mount: MountBody): void {
  writer.int(1, mount.input);
  writer.string(2, mount.selector);
  writer.string(3, mount.dest);
  writer.int(4, mount.output);
  writer.bool(5, mount.readonly);
  writer.int(6, MOUNT[mount.kind]);
  if (mount.kind === "tmpfs") writer.message(19, () => writer.int(1, mount.tmpfsSize));
  const cache = mount.cache;
  if (cache !== undefined) {
    writer.message(20, () => {
      writer.string(1, cache.id);
      writer.int(2, SHARING[cache.sharing]);
    });
  }
  const access = mount.access;
  if (access !== undefined) {
    writer.message(mount.kind === "secret" ? 21 : 22, () => {
      writer.string(1, access.id);
      writer.int(2, access.uid);
      writer.int(3, access.gid);
      writer.int(4, access.mode);
      writer.bool(5, access.optional);
    });
  }
  writer.int(24, CONTENT_CACHE[mount.contentCache]);
}

const ACTION_FIELD = { copy: 4, mkfile: 5, mkdir: 6, rm: 7, symlink: 8 } as const;

function encodeAction(action: FileActionBody): void {
  writer.int(1, action.input);
  writer.int(2, action.secondaryInput);
  writer.int(3, action.output);
  writer.message(ACTION_FIELD[action.kind], () => encodeActionBody(action));
}

function encodeActionBody(action: FileActionBody): void {
  switch (action.kind) {
    case "copy":
      encodeCopy(action);
      break;
    case "mkfile":
      writer.string(1, action.path);
      writer.int(2, action.mode);
      writer.bytes(3, action.data);
      encodeOwner(4, action.owner);
      writer.int(5, action.timestamp);
      break;
    case "mkdir":
      writer.string(1, action.path);
      writer.int(2, action.mode);
      writer.bool(3, action.makeParents);
      encodeOwner(4, action.owner);
      writer.int(5, action.timestamp);
      break;
    case "rm":
      writer.string(1, action.path);
      writer.bool(2, action.allowNotFound);
      writer.bool(3, action.allowWildcard);
      break;
    case "symlink":
      writer.string(1, action.oldPath);
      writer.string(2, action.newPath);
      encodeOwner(3, action.owner);
      writer.int(4, action.timestamp);
      break;
  }
}

function encodeCopy(copy: FileActionBody & { kind: "copy" }): void {
  writer.string(1, copy.src);
  writer.string(2, copy.dest);
  encodeOwner(3, copy.owner);
  writer.int(4, copy.mode);
  writer.bool(5, copy.followSymlink);
  writer.bool(6, copy.dirCopyContents);
  writer.bool(7, copy.attemptUnpack);
  writer.bool(8, copy.createDestPath);
  writer.bool(9, copy.allowWildcard);
  writer.bool(10, copy.allowEmptyWildcard);
  writer.int(11, copy.timestamp);
  writer.strings(12, copy.includePatterns);
  writer.strings(13, copy.excludePatterns);
  writer.bool(14, copy.alwaysReplaceExistingDestPaths);
  writer.string(15, copy.modeStr);
  writer.strings(16, copy.requiredPaths);
}

function encodeOwner(field: number, owner: OwnerBody | undefined): void {
  if (owner === undefined) return;
  writer.message(field, () => {
    encodeUser(1, owner.user);
    encodeUser(2, owner.group);
  });
}

function encodeUser(field: number, user: UserBody | undefined): void {
  if (user === undefined) return;
  writer.message(field, () => {
    if (user.kind === "name") {
      writer.message(1, () => {
        writer.string(1, user.name);
        writer.int(2, user.input);
      });
    } else {
      // Zero is written too: the field is one of two.
      writer.tag(2, 0);
      writer.varint(user.id >>> 0);
    }
  });
}
