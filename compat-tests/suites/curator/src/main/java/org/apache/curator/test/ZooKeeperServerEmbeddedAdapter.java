package org.apache.curator.test;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;

/**
 * Runs a server as a process, where Curator's class of this name runs one inside the JVM of the
 * tests. It stands before that one on the class path.
 */
public class ZooKeeperServerEmbeddedAdapter implements ZooKeeperMainFace {
    private static final long DEADLINE_S = 60;

    private Process process;
    private int port;

    @Override
    public void start(QuorumPeerConfigBuilder builder) {
        try {
            Properties settings = builder.buildProperties();
            port = Integer.parseInt(settings.getProperty("clientPort"));
            if (port == 0) {
                port = InstanceSpec.getRandomPort();
                settings.setProperty("clientPort", Integer.toString(port));
            }
            settings.setProperty("4lw.commands.whitelist", "*");
            // Set in this JVM, which has no server.
            if (QuorumPeerConfig.isReconfigEnabled()) {
                settings.setProperty("reconfigEnabled", "true");
            }
            launch(settings);
            // As inside the JVM: one of an ensemble is not waited for, since it waits for the others.
            if (settings.stringPropertyNames().stream().noneMatch(key -> key.startsWith("server."))) {
                awaitService();
            }
        } catch (Exception e) {
            throw new FailedServerStartException(e);
        }
    }

    private void launch(Properties settings) throws IOException {
        Path data = Path.of(settings.getProperty("dataDir"));
        Files.createDirectories(data);
        List<String> lines = new ArrayList<>();
        settings.stringPropertyNames().forEach(key -> lines.add(key + "=" + settings.getProperty(key)));
        // The tests set up servers of this JVM by its properties.
        System.getProperties().stringPropertyNames().stream()
            .filter(key -> key.startsWith("zookeeper.")
                || key.startsWith("readonlymode.") || key.startsWith("znode."))
            .forEach(key -> lines.add(key + "=" + System.getProperty(key)));
        Path file = Files.write(data.resolve("zoo.cfg"), lines);
        process = new ProcessBuilder(System.getenv("SERVE"), file.toString()).inheritIO().start();
    }

    private void awaitService() throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (!isServing()) {
            if (!process.isAlive() || System.nanoTime() > deadline) {
                throw new IllegalStateException("the server on port " + port + " does not serve");
            }
            Thread.sleep(20);
        }
    }

    private boolean isServing() {
        try (Socket socket = new Socket("127.0.0.1", port)) {
            socket.setSoTimeout(1_000);
            socket.getOutputStream().write("srvr".getBytes(StandardCharsets.US_ASCII));
            byte[] answer = socket.getInputStream().readAllBytes();
            return new String(answer, StandardCharsets.US_ASCII).contains("Mode: ");
        } catch (IOException e) {
            return false;
        }
    }

    @Override
    public int getClientPort() {
        return port;
    }

    @Override
    public void kill() {
        end(Process::destroyForcibly);
    }

    @Override
    public void close() {
        end(running -> {
            running.destroy();
            return running;
        });
    }

    private void end(java.util.function.UnaryOperator<Process> signal) {
        if (process == null) {
            return;
        }
        try {
            signal.apply(process).waitFor();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new UncheckedIOException(new IOException("interrupted while a server ends", e));
        }
        process = null;
    }
}
