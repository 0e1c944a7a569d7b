import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.MethodDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.ByteString;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.StructProto;
import io.grpc.CallOptions;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Programs that others wrote, against a SPIFFE Workload API: SPIFFE's own library for Java with each call that it has,
 * then grpc-java, which learns by server reflection what there is and calls it without stubs. The argument is the
 * endpoint, {@code unix:/path}. Each line that it prints is {@code name value…}.
 */
public final class WorkloadClient {
    private static final String SERVICE = "SpiffeWorkloadAPI";
    private static final long PATIENCE_SECONDS = 20;

    public static void main(String[] arguments) throws Exception {
        library(arguments[0]);
        reflection(arguments[0].substring("unix:".length()));
        System.exit(0); // whatever threads the libraries keep
    }

    private static void library(String endpoint) throws Exception {
        var options = DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(endpoint).build();
        try (var client = DefaultWorkloadApiClient.newClient(options)) {
            var context = client.fetchX509Context();
            for (var svid : context.getX509Svids()) {
                X509SvidValidator.verifyChain(svid.getChain(), context.getX509BundleSet());
                say("x509", svid.getSpiffeId(), svid.getHint());
            }
            say("federated", new TreeSet<>(names(context.getX509BundleSet().getBundles().keySet())));
            say("x509-bundles", new TreeSet<>(names(client.fetchX509Bundles().getBundles().keySet())));
            var bundles = client.fetchJwtBundles();
            say("jwt-bundles", new TreeSet<>(names(bundles.getBundles().keySet())));
            for (var svid : client.fetchJwtSvids("reports")) {
                io.spiffe.svid.jwtsvid.JwtSvid.parseAndValidate(svid.getToken(), bundles, java.util.Set.of("reports"));
                var valid = client.validateJwtSvid(svid.getToken(), "reports");
                say("jwt", svid.getSpiffeId(), svid.getHint(), valid.getSpiffeId().equals(svid.getSpiffeId()));
                say("other-audience", refusal(() -> client.validateJwtSvid(svid.getToken(), "others")));
            }
            var own = context.getDefaultSvid().getSpiffeId();
            say("one", client.fetchJwtSvid(own, "reports").getSpiffeId());
            var stranger = SpiffeId.fromSegments(own.getTrustDomain(), "not-ours");
            say("stranger", refusal(() -> client.fetchJwtSvid(stranger, "reports")));
        }
        var source = DefaultX509Source.X509SourceOptions.builder().spiffeSocketPath(endpoint).build();
        try (var x509 = DefaultX509Source.newSource(source)) {
            say("x509-source", x509.getX509Svid().getSpiffeId());
        }
    }

    private static List<String> names(Iterable<io.spiffe.spiffeid.TrustDomain> domains) {
        var names = new ArrayList<String>();
        domains.forEach(domain -> names.add(domain.getName()));
        return names;
    }

    private interface Call {
        Object run() throws Exception;
    }

    private static String refusal(Call call) {
        try {
            call.run();
            return "answered";
        } catch (Exception error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                if (cause instanceof StatusRuntimeException refused) {
                    return refused.getStatus().getCode().toString();
                }
            }
            return error.toString();
        }
    }

    private static void reflection(String path) throws Exception {
        var group = new EpollEventLoopGroup(1);
        ManagedChannel plain = NettyChannelBuilder.forAddress(new DomainSocketAddress(path)).eventLoopGroup(group)
            .channelType(EpollDomainSocketChannel.class).usePlaintext().build();
        try {
            var header = new Metadata();
            header.put(Metadata.Key.of("workload.spiffe.io", Metadata.ASCII_STRING_MARSHALLER), "true");
            var channel = ClientInterceptors.intercept(plain, MetadataUtils.newAttachHeadersInterceptor(header));
            var stub = ServerReflectionGrpc.newStub(channel);
            var services = reflect(stub, ServerReflectionRequest.newBuilder().setListServices("").build());
            var listed = services.getListServicesResponse().getServiceList().stream().map(found -> found.getName());
            say("services", new TreeSet<>(listed.toList()));
            var asked = ServerReflectionRequest.newBuilder().setFileContainingSymbol(SERVICE).build();
            var service = describe(reflect(stub, asked).getFileDescriptorResponse().getFileDescriptorProtoList());
            say("methods", new TreeSet<>(service.getMethods().stream().map(MethodDescriptor::getName).toList()));

            var fetch = service.findMethodByName("FetchJWTSVID");
            var audience = fetch.getInputType().findFieldByName("audience");
            var question = DynamicMessage.newBuilder(fetch.getInputType()).addRepeatedField(audience, "reports").build();
            var answer = ClientCalls.blockingUnaryCall(channel, grpc(fetch), deadline(), question);
            say("reflected", answer.getRepeatedFieldCount(fetch.getOutputType().findFieldByName("svids")));
            var nothing = DynamicMessage.getDefaultInstance(fetch.getInputType());
            say("no-audience", refusal(() -> ClientCalls.blockingUnaryCall(channel, grpc(fetch), deadline(), nothing)));
            say("no-header", refusal(() -> ClientCalls.blockingUnaryCall(plain, grpc(fetch), deadline(), question)));
        } finally {
            plain.shutdownNow().awaitTermination(PATIENCE_SECONDS, TimeUnit.SECONDS);
            group.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        }
    }

    private static CallOptions deadline() {
        return CallOptions.DEFAULT.withDeadlineAfter(PATIENCE_SECONDS, TimeUnit.SECONDS);
    }

    private static ServerReflectionResponse reflect(
        ServerReflectionGrpc.ServerReflectionStub stub, ServerReflectionRequest question) throws Exception {
        var answer = new CompletableFuture<ServerReflectionResponse>();
        var questions = stub.serverReflectionInfo(new StreamObserver<>() {
            @Override
            public void onNext(ServerReflectionResponse response) {
                answer.complete(response);
            }

            @Override
            public void onError(Throwable error) {
                answer.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {
                answer.completeExceptionally(Status.UNAVAILABLE.asException());
            }
        });
        questions.onNext(question);
        var response = answer.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        questions.onCompleted();
        return response;
    }

    /** The service, of files that a server has described. */
    private static ServiceDescriptor describe(List<ByteString> files) throws Exception {
        Map<String, FileDescriptor> known = new HashMap<>();
        known.put("google/protobuf/struct.proto", StructProto.getDescriptor());
        for (ByteString bytes : files) {
            var file = FileDescriptorProto.parseFrom(bytes);
            if (file.getServiceList().stream().anyMatch(service -> service.getName().equals(SERVICE))) {
                var needed = file.getDependencyList().stream().map(known::get).toArray(FileDescriptor[]::new);
                return FileDescriptor.buildFrom(file, needed).findServiceByName(SERVICE);
            }
        }
        throw new IllegalStateException("reflection describes no " + SERVICE);
    }

    private static io.grpc.MethodDescriptor<DynamicMessage, DynamicMessage> grpc(MethodDescriptor method) {
        return io.grpc.MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
            .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(io.grpc.MethodDescriptor.generateFullMethodName(SERVICE, method.getName()))
            .setRequestMarshaller(marshaller(method.getInputType()))
            .setResponseMarshaller(marshaller(method.getOutputType()))
            .build();
    }

    private static io.grpc.MethodDescriptor.Marshaller<DynamicMessage> marshaller(Descriptor type) {
        return ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(type));
    }

    private static void say(String name, Object... values) {
        var line = new StringBuilder(name);
        for (Object value : values) {
            line.append(' ').append(value);
        }
        System.out.println(line);
    }
}
