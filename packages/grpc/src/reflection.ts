import type { DescFile, MessageInitShape } from "@bufbuild/protobuf";
import { descriptorBytes } from "@kiln/api/lean-file";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "@kiln/api/reflection";
import { ServerReflection as ServerReflectionV1Alpha } from "@kiln/api/reflection-v1alpha";
import type { Router } from "./router.ts";
import type { ServerCall } from "./server-call.ts";
import { numberOfCode } from "./status.ts";

type Answer = MessageInitShape<typeof ServerReflectionResponseSchema>;

/** Adds server reflection (v1 and v1alpha, which are alike on the wire) for all services of a router. */
export function addReflection(router: Router): void {
  router.add(ServerReflection, { serverReflectionInfo: (call) => answerAll(router, call) });
  router.add(ServerReflectionV1Alpha, {
    serverReflectionInfo: (call) =>
      answerAll(router, call as unknown as ServerCall<ServerReflectionRequest, Answer>),
  });
}

async function answerAll(router: Router, call: ServerCall<ServerReflectionRequest, Answer>): Promise<void> {
  for await (const request of call) await call.send(await answer(router, request));
}

async function answer(router: Router, request: ServerReflectionRequest): Promise<Answer> {
  const head = { validHost: request.host, originalRequest: request };
  const query = request.messageRequest;
  switch (query.case) {
    case "listServices": {
      const service = router.services
        .map((s) => ({ name: s.typeName }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
      return { ...head, messageResponse: { case: "listServicesResponse", value: { service } } };
    }
    case "fileByFilename":
      return {
        ...head,
        ...(await files(
          findFile(router, (f) => `${f.name}.proto` === query.value),
          query.value,
        )),
      };
    case "fileContainingSymbol":
      return {
        ...head,
        ...(await files(
          findFile(router, (f) => hasSymbol(f, query.value)),
          query.value,
        )),
      };
    case "allExtensionNumbersOfType":
    case "fileContainingExtension":
      return { ...head, ...failure("not_found", "extensions are not used") };
    default:
      return { ...head, ...failure("invalid_argument", "invalid MessageRequest") };
  }
}

function failure(
  code: "not_found" | "invalid_argument",
  errorMessage: string,
): Pick<Answer, "messageResponse"> {
  return {
    messageResponse: { case: "errorResponse", value: { errorCode: numberOfCode(code), errorMessage } },
  };
}

/** The file and all that it needs, each once, dependencies included. */
async function files(file: DescFile | undefined, name: string): Promise<Pick<Answer, "messageResponse">> {
  if (!file) return failure("not_found", `not found: ${name}`);
  const seen = new Map<string, Uint8Array>();
  const add = async (f: DescFile): Promise<void> => {
    if (seen.has(f.name)) return;
    seen.set(f.name, descriptorBytes(f) ?? (await import("./library-descriptor.ts")).librarysBytes(f));
    for (const dependency of f.dependencies) await add(dependency);
  };
  await add(file);
  return {
    messageResponse: { case: "fileDescriptorResponse", value: { fileDescriptorProto: [...seen.values()] } },
  };
}

function findFile(router: Router, matches: (file: DescFile) => boolean): DescFile | undefined {
  const seen = new Set<DescFile>();
  const find = (file: DescFile): DescFile | undefined => {
    if (seen.has(file)) return undefined;
    seen.add(file);
    if (matches(file)) return file;
    for (const dependency of file.dependencies) {
      const found = find(dependency);
      if (found) return found;
    }
    return undefined;
  };
  for (const service of router.services) {
    const found = find(service.file);
    if (found) return found;
  }
  return undefined;
}

function hasSymbol(file: DescFile, symbol: string): boolean {
  const inMessages = (messages: DescFile["messages"]): boolean =>
    messages.some(
      (m) =>
        m.typeName === symbol ||
        m.fields.some((f) => `${m.typeName}.${f.name}` === symbol) ||
        m.nestedEnums.some((e) => e.typeName === symbol) ||
        inMessages(m.nestedMessages),
    );
  return (
    inMessages(file.messages) ||
    file.enums.some((e) => e.typeName === symbol) ||
    file.services.some(
      (s) => s.typeName === symbol || s.methods.some((m) => `${s.typeName}.${m.name}` === symbol),
    )
  );
}
